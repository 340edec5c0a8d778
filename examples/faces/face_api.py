"""The judge and the measures of drift: three nets of face-api, rebuilt from their weights and from its source.

All take colour faces in [0, 1], the expression and the age and gender net at 112x112, the descriptor at 150x150.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tensorflow_layers import Separable, conv, depthwise_kernel, fill, kernel, max_pool

EXPRESSIONS = ["neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised"]
GENDERS = ["male", "female"]
MEAN = [122.782, 117.001, 104.298]  # of the photographs it was trained on: red, green, blue of 255


class Centred(nn.Module):
    """Images in [0, 1] less the mean colour."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1) / 255, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.mean


class Dense(nn.Module):
    """Four convolutions, each given the sum of all before it; the first halves the size."""

    def __init__(self, first: nn.Module, channels: int):
        super().__init__()
        self.conv0 = first
        self.conv1, self.conv2, self.conv3 = (Separable(channels, channels) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.relu(self.conv0(x))
        out = self.conv1(total)
        total = total + out
        out = self.conv2(torch.relu(total))
        total = total + out
        return torch.relu(total + self.conv3(torch.relu(total)))


class Expression(nn.Module):
    """Faces [N, 3, 112, 112] in [0, 1] to logits [N, 7]."""

    def __init__(self):
        super().__init__()
        self.centre = Centred()
        self.dense0 = Dense(conv(3, 32, 3, 2), 32)
        self.dense1 = Dense(Separable(32, 64, 2), 64)
        self.dense2 = Dense(Separable(64, 128, 2), 128)
        self.dense3 = Dense(Separable(128, 256, 2), 256)
        self.fc = nn.Linear(256, len(EXPRESSIONS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dense1(self.dense0(self.centre(x)))
        return self.fc(self.dense3(self.dense2(x)).mean((2, 3)))


class Reduction(nn.Module):
    """Half the size: two separable convolutions and a maximum, beside a 1x1 convolution of every other pixel."""

    def __init__(self, inputs: int, outputs: int, activate: bool):
        super().__init__()
        self.activate = activate
        self.separable_conv0, self.separable_conv1 = Separable(inputs, outputs), Separable(outputs, outputs)
        self.expansion_conv = nn.Conv2d(inputs, outputs, 1, 2)
        self.pool = max_pool(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.separable_conv0(torch.relu(x) if self.activate else x)
        return self.pool(self.separable_conv1(torch.relu(y))) + self.expansion_conv(x)


class Main(nn.Module):
    """Three separable convolutions, added to what came in."""

    def __init__(self, channels: int):
        super().__init__()
        self.separable_conv0 = Separable(channels, channels)
        self.separable_conv1 = Separable(channels, channels)
        self.separable_conv2 = Separable(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.separable_conv0(torch.relu(x))
        y = self.separable_conv1(torch.relu(y))
        return x + self.separable_conv2(torch.relu(y))


class AgeGender(nn.Module):
    """Faces [N, 3, 112, 112] in [0, 1] to ages [N, 1] in years and logits of the gender [N, 2]."""

    def __init__(self):
        super().__init__()
        self.centre = Centred()
        self.entry_flow = nn.ModuleDict(
            {
                "conv_in": conv(3, 32, 3, 2),
                "reduction_block_0": Reduction(32, 64, activate=False),
                "reduction_block_1": Reduction(64, 128, activate=True),
            }
        )
        self.middle_flow = nn.ModuleDict({"main_block_0": Main(128), "main_block_1": Main(128)})
        self.exit_flow = nn.ModuleDict(
            {"reduction_block": Reduction(128, 256, activate=True), "separable_conv": Separable(256, 512)}
        )
        self.fc = nn.ModuleDict({"age": nn.Linear(512, 1), "gender": nn.Linear(512, len(GENDERS))})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.entry_flow["conv_in"](self.centre(x)))
        x = self.entry_flow["reduction_block_1"](self.entry_flow["reduction_block_0"](x))
        x = self.middle_flow["main_block_1"](self.middle_flow["main_block_0"](x))
        x = torch.relu(self.exit_flow["separable_conv"](self.exit_flow["reduction_block"](x))).mean((2, 3))
        return self.fc["age"](x), self.fc["gender"](x)


class Residual(nn.Module):
    """Two 3x3 convolutions added to what came in; where `down`, that is halved and gets channels of zeros."""

    def __init__(self, inputs: int, outputs: int, down: bool):
        super().__init__()
        self.down, self.added = down, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if down else 1, 0 if down else 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(torch.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2, 2)
            x = F.pad(x, [0, 0, 0, 0, 0, self.added])
            y = F.pad(y, [0, x.size(3) - y.size(3), 0, x.size(2) - y.size(2)])
        return torch.relu(x + y)


class Descriptor(nn.Module):
    """Faces [N, 3, 150, 150] in [0, 1] to 128 numbers each, near for the same person: dlib's ResNet for faces."""

    def __init__(self):
        super().__init__()
        self.centre = Centred()
        self.conv32_down = nn.Conv2d(3, 32, 7, 2)
        for name, inputs, outputs in _residuals():
            self.add_module(name, Residual(inputs, outputs, down="down" in name))
        self.fc = nn.Linear(256, 128, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.relu(self.conv32_down(self.centre(x))), 3, 2)
        x = self.conv32_3(self.conv32_2(self.conv32_1(x)))
        x = self.conv64_3(self.conv64_2(self.conv64_1(self.conv64_down(x))))
        x = self.conv128_2(self.conv128_1(self.conv128_down(x)))
        x = self.conv256_2(self.conv256_1(self.conv256_down(x)))
        return self.fc(self.conv256_down_out(x).mean((2, 3)))


def _residuals() -> list[tuple[str, int, int]]:
    """(name, channels in, channels out) of the descriptor's blocks."""
    blocks = [(f"conv32_{i}", 32, 32) for i in (1, 2, 3)]
    for inputs, outputs, count in ((32, 64, 3), (64, 128, 2), (128, 256, 2)):
        blocks.append((f"conv{outputs}_down", inputs, outputs))
        blocks += [(f"conv{outputs}_{i + 1}", outputs, outputs) for i in range(count)]
    return [*blocks, ("conv256_down_out", 256, 256)]


def expression(folder: str) -> Expression:
    net = Expression()
    return fill(net, _placed(net, weights(Path(folder), "face_expression")))


def age_gender(folder: str) -> AgeGender:
    net = AgeGender()
    return fill(net, _placed(net, weights(Path(folder), "age_gender")))


def descriptor(folder: str) -> Descriptor:
    net = Descriptor()
    found = weights(Path(folder), "face_recognition")
    placed = {"fc.weight": found.pop("fc").t().contiguous()}
    for layer in {name.rsplit("/", 2)[0] for name in found}:
        # (conv(x) + bias) * scale + shift, as one convolution
        scale, shift = found[f"{layer}/scale/weights"], found[f"{layer}/scale/biases"]
        ours = layer.replace("/", ".")
        placed[f"{ours}.weight"] = kernel(found[f"{layer}/conv/filters"]) * scale.reshape(-1, 1, 1, 1)
        placed[f"{ours}.bias"] = found[f"{layer}/conv/bias"] * scale + shift
    return fill(net, placed)


def weights(folder: Path, net: str) -> dict[str, torch.Tensor]:
    """The tensors of a net as its manifest describes them: float32, or bytes times a scale plus a minimum."""
    (group,) = json.loads((folder / f"{net}_model-weights_manifest.json").read_text())
    content = (folder / f"{net}_model.bin").read_bytes()
    found, at = {}, 0
    for entry in group["weights"]:
        count, quantized = math.prod(entry["shape"]), entry.get("quantization")
        kind = np.dtype(quantized["dtype"] if quantized else "<f4")
        values = np.frombuffer(content, kind, count, at).astype(np.float32)
        if quantized:
            values = values * np.float32(quantized["scale"]) + np.float32(quantized["min"])
        found[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
        at += count * kind.itemsize
    if at != len(content):
        raise ValueError(f"{net}_model.bin has {len(content)} bytes, its manifest describes {at}")
    return found


def _placed(net: nn.Module, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under our names and with our axes. Of a convolution with padding the second part has the weights."""
    placed = {}
    for name, tensor in found.items():
        layer, _, leaf = name.replace("/", ".").rpartition(".")
        part = net.get_submodule(layer)
        inner = {nn.Sequential: "1.", Separable: "pointwise."}.get(type(part), "")
        if leaf == "depthwise_filter":
            placed[f"{layer}.depthwise.weight"] = depthwise_kernel(tensor)
        elif leaf == "bias":
            placed[f"{layer}.{inner}bias"] = tensor
        else:
            placed[f"{layer}.{inner}weight"] = kernel(tensor) if tensor.dim() == 4 else tensor.t().contiguous()
    return placed
