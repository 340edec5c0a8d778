"""Layers as TensorFlow has them, where PyTorch differs: padding and the order of a kernel's axes."""

import torch
import torch.nn.functional as F
from torch import nn


class Same(nn.Module):
    """Pads for a window of `kernel` at `stride` so that ceil(size / stride) windows fit: TensorFlow's padding="same".

    An odd rest goes below and to the right; PyTorch's own `padding` is the same on both sides.
    """

    def __init__(self, kernel: int, stride: int, value: float = 0.0):
        super().__init__()
        self.kernel, self.stride, self.value = kernel, stride, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = self.lacking(x.size(2)), self.lacking(x.size(3))
        sides = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
        return F.pad(x, sides, value=self.value)

    def lacking(self, size: int) -> int:
        windows = (size + self.stride - 1) // self.stride
        return max((windows - 1) * self.stride + self.kernel - size, 0)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Sequential:
    """A convolution with padding="same"."""
    return nn.Sequential(Same(kernel, stride), nn.Conv2d(inputs, outputs, kernel, stride, bias=bias))


def max_pool(kernel: int, stride: int) -> nn.Sequential:
    """Maxima with padding="same": what is padded never wins."""
    return nn.Sequential(Same(kernel, stride, float("-inf")), nn.MaxPool2d(kernel, stride))


class Separable(nn.Module):
    """A 3x3 convolution of each channel with padding="same", then a 1x1 convolution of them all, which has the bias."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, bias: bool = True):
        super().__init__()
        self.pad = Same(3, stride)
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(self.pad(x)))


def kernel(values: torch.Tensor) -> torch.Tensor:
    """[height, width, in, out] as [out, in, height, width]."""
    return values.permute(3, 2, 0, 1).contiguous()


def depthwise_kernel(values: torch.Tensor) -> torch.Tensor:
    """[height, width, channels, 1] as [channels, 1, height, width]."""
    return values.permute(2, 3, 0, 1).contiguous()


def fill(module: nn.Module, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The module with these weights, all and no other, in eval mode. BatchNorm's count of batches is no weight."""
    missing, unexpected = module.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        kind = type(module).__name__
        raise ValueError(f"the weights do not fit {kind}: missing {missing}, without a place {unexpected}")
    return module.eval()
