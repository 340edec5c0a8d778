"""Writes the stroke thickness and slant scorers. Nothing is trained.

    python scorers.py

Both follow `measure_image` of Morpho-MNIST (Castro et al., JMLR 20, 2019): images are
bytes, upscaled 4x by scikit-image's `pyramid_expand` (cubic spline, then a Gaussian),
binarised at half of their range. Where tensors force another way, the docs say so;
examples/mnist/tests compares the outcome with the definitions. Not differentiable.
"""

import numpy as np
import torch
from scipy import ndimage
from torch import nn

import artifact

SIDE = 28
SCALE = 4


def upscaling() -> torch.Tensor:
    """`pyramid_expand` along one axis, as a matrix [112, 28]; an image takes M X M^T.

    The original clips the spline's overshoot before the Gaussian, we clip after it.
    """
    zoom = [ndimage.zoom(e, SCALE, order=3, mode="mirror", grid_mode=True) for e in np.eye(SIDE)]
    sigma = 2 * SCALE / 6.0
    return torch.tensor(ndimage.gaussian_filter1d(np.stack(zoom), sigma, axis=1).T).float()


class Slant(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> slant in radians, arctan(-mu11 / mu02): [N].

    A digit leaning to the right is positive. The moments of the upscaled image are
    linear in the image, so they are taken without upscaling it. Blank images score 0.
    """

    def __init__(self) -> None:
        super().__init__()
        position = torch.arange(SIDE * SCALE).double()
        powers = torch.stack([position**0, position, position**2])
        self.register_buffer("moments", (powers @ upscaling().double()).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.round(images[:, 0] * 255.0)
        raw = torch.matmul(torch.matmul(self.moments, x), self.moments.t()).double()
        mass = raw[:, 0, 0].clamp(min=1e-6)
        mean_y, mean_x = raw[:, 1, 0] / mass, raw[:, 0, 1] / mass
        mu11 = raw[:, 1, 1] / mass - mean_x * mean_y
        mu02 = raw[:, 2, 0] / mass - mean_y * mean_y
        return torch.atan(-mu11 / mu02.clamp(min=1e-6)).float()


class Thickness(nn.Module):
    """[N, 1, 28, 28] in [0, 1] -> stroke thickness in pixels: [N].

    2 x the mean of the distance transform along the skeleton. The distance transform
    is exact up to 4 pixels and saturates there. The skeleton is its ridge: the
    points where it is flatter than slope sqrt(5/16); elsewhere its slope is 1. Even
    images score 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.radius = 4 * SCALE  # in upscaled pixels; a power of two
        self.chunk = 64  # images per pass; more would fall out of the cache
        self.register_buffer("upscaling", upscaling())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores = [self.measure(chunk) for chunk in images.split(self.chunk)]
        return torch.cat(scores)

    def measure(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of one chunk, laid out [112, 112, N] so that every shift is one long run."""
        squared = self.squared_distance(self.binary(images))
        centre = squared[1:-1, 1:-1]
        dy = squared[2:, 1:-1] - squared[:-2, 1:-1]
        dx = squared[1:-1, 2:] - squared[1:-1, :-2]
        # |grad d^2|^2 = (2 d |grad d|)^2, and central differences double it again:
        # dx^2 + dy^2 = 16 d^2 |grad d|^2, in integers.
        ridge = (dx * dx + dy * dy < 5 * centre).float()
        length = ridge.sum((0, 1)).clamp(min=1.0)
        return 2.0 / 4.0 * (centre.float().sqrt() * ridge).sum((0, 1)) / length

    def binary(self, images: torch.Tensor) -> torch.Tensor:
        """The upscaled strokes, i16 [112, 112, N] of 0 and 1."""
        x = torch.round(images[:, 0] * 255.0).permute(1, 2, 0).contiguous()
        side, n = self.upscaling.size(0), x.size(2)
        tall = torch.mm(self.upscaling, x.view(x.size(0), -1)).view(side, x.size(1), n)
        large = torch.matmul(self.upscaling, tall)
        large = torch.minimum(large.clamp(min=0.0), x.amax((0, 1)))
        low, high = large.amin((0, 1)), large.amax((0, 1))
        strokes = (large >= low + (high - low) * 0.5) & (high - low > 1.0)
        return strokes.to(torch.int16)

    def squared_distance(self, strokes: torch.Tensor) -> torch.Tensor:
        """Squared Euclidean distance to the background, i16, exact below radius^2.

        Separable: distances along columns by doubling, then the lower envelope of
        parabolas along rows. As in the original, outside the image is no background.
        """
        d = strokes * self.radius
        step = 1
        while step < self.radius:
            near = d.clone()
            near[:-step] = torch.minimum(near[:-step], d[step:] + step)
            near[step:] = torch.minimum(near[step:], d[:-step] + step)
            d = near
            step *= 2
        width = d.size(1)
        wide = torch.full(
            [d.size(0), width + 2 * self.radius, d.size(2)],
            self.radius * self.radius,
            dtype=torch.int16,
            device=d.device,
        )
        wide[:, self.radius : self.radius + width] = d * d
        best = (d * d).contiguous()
        for k in range(1, self.radius):
            left = wide[:, self.radius - k : self.radius - k + width]
            right = wide[:, self.radius + k : self.radius + k + width]
            best = torch.minimum(best, torch.minimum(left, right) + k * k)
        return best


def main() -> None:
    source = "written by examples/mnist/train/scorers.py after Morpho-MNIST's definitions; no weights"
    artifact.write_torchscript("thickness", Thickness(), kind="scorer", source=source)
    artifact.write_torchscript("slant", Slant(), kind="scorer", source=source)


if __name__ == "__main__":
    main()
