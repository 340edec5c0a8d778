"""Trains the judge of digits: a second opinion that shares nothing with the classifier but the training images.

    python judge.py --data DIR

Writes models/judge.pt ([N,1,28,28] in [0,1] -> 10 logits). Residual 3x3 convolutions with BatchNorm, max pooling and a
mean over the image, where classifier.py has strided convolutions and a linear layer; another seed, another optimiser,
and images bent by a smooth random field where the classifier sees them turned, scaled and shifted.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import artifact
import mnist
import one_cycle
from classifier import accuracy

SEED = 11
EPOCHS = 6
BATCH = 128
PEAK_RATE = 0.2
KNOTS = 5  # a side, of the random field
BEND = 0.06  # its standard deviation at the knots, in halves of an image: 0.8 pixels
ERASED = 6  # the side of the square that is blanked in half of the images


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two convolutions around which the input is carried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Judge(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(1, 16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            convolution(16, 32),
            nn.ReLU(),
            Block(32),
            nn.MaxPool2d(2),
            convolution(32, 64),
            nn.ReLU(),
            Block(64),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean((2, 3)))


def bend(images: torch.Tensor) -> torch.Tensor:
    """Moves each image's pixels a little, by a smooth random field."""
    n, side = len(images), images.shape[-1]
    field = F.interpolate(torch.randn(n, 2, KNOTS, KNOTS) * BEND, side, mode="bicubic", align_corners=True)
    straight = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, straight + field.permute(0, 2, 3, 1), align_corners=False)


def erase(images: torch.Tensor) -> torch.Tensor:
    """Blanks a square of every other image."""
    n, side = len(images), images.shape[-1]
    corner = torch.randint(side - ERASED + 1, (2, n, 1))
    rows, columns = ((torch.arange(side) >= c) & (torch.arange(side) < c + ERASED) for c in corner)
    square = (rows[:, :, None] & columns[:, None, :])[:, None] & (torch.rand(n, 1, 1, 1) < 0.5)
    return images.masked_fill(square, 0.0)


def train(images: torch.Tensor, labels: torch.Tensor) -> Judge:
    """Fits a judge to u8 images with a one-cycle learning rate."""
    torch.manual_seed(SEED)
    model = Judge()
    optimiser = torch.optim.SGD(model.parameters(), PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(erase(bend(mnist.to_float(images[rows])))), labels[rows].long())

    one_cycle.fit(optimiser, PEAK_RATE, EPOCHS, BATCH, len(images), loss, lambda _, last: f"loss {last:.4f}")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the result depends on it, in the last bits
    model = train(*mnist.load(arguments.data, "train"))
    print(f"test accuracy {accuracy(model, *mnist.load(arguments.data, 't10k')):.4f}")
    source = artifact.SOURCE.format(script="judge.py")
    artifact.write_torchscript("judge", model, kind="classifier", classes=10, source=source)


if __name__ == "__main__":
    main()
