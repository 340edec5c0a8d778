"""Makes the judges of the strokes, which measure what scorers.py measures in other ways.

    python stroke_judges.py --data DIR

Writes models/slant_judge.pt and models/thickness_judge.pt. The slant is that of a least-squares line; nothing is
trained. The thickness is a small network's, taught scikit-image's definition (definitions.py) on training images.
Neither upscales an image or shares code with the scorers.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import definitions
import judge
import mnist
import one_cycle

SEED = 12
TAUGHT = 12_000  # images; the definition takes 20 ms for each
EPOCHS = 30
BATCH = 64
PEAK_RATE = 3e-3


class SlantJudge(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> slant in radians, positive to the right: [N].

    The line x = a - y tan(slant) with the least squared error over the image's pixels, each weighing what it is bright.
    Blank images score 0.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        weight = images[:, 0].double()
        place = torch.arange(weight.size(1), device=weight.device).double()
        total = weight.sum((1, 2)).clamp(min=1e-6)[:, None]
        y = place - (weight.sum(2) @ place)[:, None] / total
        x = place - (weight.sum(1) @ place)[:, None] / total
        together = torch.einsum("nij,ni,nj->n", weight, y, x)
        return torch.atan(-together / (weight.sum(2) * y * y).sum(1).clamp(min=1e-6)).float()


class ThicknessJudge(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> stroke thickness in pixels: [N].

    The quotient of two sums over the image, as area by length is one, of two maps that convolutions draw on its
    strokes. Blank images score 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 16, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 16, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 2, 1),
            nn.Softplus(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        sums = (self.maps(images) * images).sum((2, 3))
        return sums[:, 0] / sums[:, 1].clamp(min=1e-3)


def teach_on(images: torch.Tensor) -> torch.Tensor:
    """u8 images as generators give them too: a quarter as they are, the others bent, blurred, or both."""
    whole = mnist.to_float(images)
    bent = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, judge.bend(whole), whole)
    width = torch.rand(len(images), 1) + 0.3
    line = torch.exp(-(((torch.arange(7) - 3) / width) ** 2) / 2)
    line = line / line.sum(1, keepdim=True)
    kernel = line[:, None, :, None] * line[:, None, None, :]
    blurred = F.conv2d(bent.transpose(0, 1), kernel, padding=3, groups=len(images)).transpose(0, 1)
    whole = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, blurred, bent)
    return (whole.clamp(0, 1) * 255).round().byte()


def turned(images: torch.Tensor) -> torch.Tensor:
    """The batch in one of the eight ways to turn and mirror a square, which leave strokes as thick as they are."""
    way = int(torch.randint(8, ()))
    images = images.rot90(way % 4, (2, 3))
    return images.flip(3) if way >= 4 else images


def train(images: torch.Tensor, thickness: torch.Tensor) -> ThicknessJudge:
    """Fits a judge to u8 images and what the definition says of them, with a one-cycle learning rate."""
    model = ThicknessJudge()
    optimiser = torch.optim.Adam(model.parameters())

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(model(turned(mnist.to_float(images[rows]))), thickness[rows])

    one_cycle.fit(
        optimiser, PEAK_RATE, EPOCHS, BATCH, len(images), loss, lambda mean, _: f"mean error {mean:.4f} pixels"
    )
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    torch.manual_seed(SEED)
    images = teach_on(mnist.load(arguments.data, "train")[0][:TAUGHT])
    thickness = torch.tensor([definitions.thickness(image) for image in images[:, 0].numpy()]).float()
    source = "written by examples/mnist/train/stroke_judges.py; no weights"
    artifact.write_torchscript("slant_judge", SlantJudge(), kind="scorer", source=source)
    source = artifact.SOURCE.format(script="stroke_judges.py")
    artifact.write_torchscript("thickness_judge", train(images, thickness), kind="scorer", source=source)


if __name__ == "__main__":
    main()
