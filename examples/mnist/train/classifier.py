"""Trains the digit classifier and cuts the feature extractor out of it.

    python classifier.py --data DIR

Writes models/classifier.pt ([N,1,28,28] in [0,1] -> 10 logits) and models/features.pt
(the same network's penultimate layer, the space of the Frechet distance).
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import mnist
import one_cycle

SEED = 1
EPOCHS = 10
BATCH = 128
PEAK_RATE = 3e-3
FEATURES = 64


class Features(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> [N, 64]. No BatchNorm and no dropout: one mode only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(24, 48, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(48, 64, 3, stride=2, padding=1)
        self.project = nn.Linear(64 * 4 * 4, FEATURES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.conv1(images))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return F.relu(self.project(x.flatten(1)))


class Classifier(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features()
        self.head = nn.Linear(FEATURES, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


def augment(images: torch.Tensor) -> torch.Tensor:
    """Rotates, scales and shifts each image a little, so that labels hold on generated digits too."""
    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.4
    scale = 1.0 + (torch.rand(n) - 0.5) * 0.2
    shift = (torch.rand(n, 2) - 0.5) * 0.2
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of u8 `images` whose largest logit is their label."""
    hits = [
        (model(mnist.to_float(x)).argmax(1) == y).sum()
        for x, y in zip(images.split(1000), labels.split(1000), strict=True)
    ]
    return sum(hits).item() / len(labels)


def train(images: torch.Tensor, labels: torch.Tensor) -> Classifier:
    """Fits a classifier to u8 images with a one-cycle learning rate."""
    torch.manual_seed(SEED)
    model = Classifier()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(augment(mnist.to_float(images[rows]))), labels[rows].long())

    one_cycle.fit(optimiser, PEAK_RATE, EPOCHS, BATCH, len(images), loss, lambda _, last: f"loss {last:.4f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    model = train(*mnist.load(arguments.data, "train"))
    print(f"test accuracy {accuracy(model, *mnist.load(arguments.data, 't10k')):.4f}")
    source = artifact.SOURCE.format(script="classifier.py")
    artifact.write_torchscript("classifier", model, kind="classifier", classes=10, source=source)
    artifact.write_torchscript(
        "features", model.features, kind="features", dimension=FEATURES, source=source
    )


if __name__ == "__main__":
    main()
