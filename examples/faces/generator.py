"""The DCGAN of generateme, after its weights: what tools/export compares the native artifact with."""

import torch
from torch import nn

# Channels after each transposed convolution: 4, 8, 16, 32 and 64 pixels a side.
LATENT, WIDTHS, COLOURS = 100, [512, 256, 128, 64], 3


class Generator(nn.Module):
    """Latents [N, 100, 1, 1] from N(0, I) to images [N, 3, 64, 64] in [-1, 1]. Named as in the weights file."""

    def __init__(self):
        super().__init__()
        inputs = [LATENT, *WIDTHS]
        for i, width in enumerate([*WIDTHS, COLOURS]):
            stride, padding = (2, 1) if i else (1, 0)
            self.add_module(f"convTr{i + 1}", nn.ConvTranspose2d(inputs[i], width, 4, stride, padding, bias=False))
            if i < len(WIDTHS):
                self.add_module(f"batchNorm{i + 1}", nn.BatchNorm2d(width))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = z
        for i in range(1, len(WIDTHS) + 1):
            x = torch.relu(getattr(self, f"batchNorm{i}")(getattr(self, f"convTr{i}")(x)))
        return torch.tanh(getattr(self, f"convTr{len(WIDTHS) + 1}")(x))
