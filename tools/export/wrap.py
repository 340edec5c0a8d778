"""Puts what a module lacks around it, and turns it into TorchScript.

Before the module: `Crop`, `Resize`, `Grey`, `Colour`, `Rescale`, `Normalize` (Lethe gives images in [0, 1]). After it: choosing
one of several outputs, single precision, and an activation. Parts that the forward pass never uses (a VAE's encoder)
are taken out.
"""

import warnings
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from .refusal import Refused, gist


class Crop(nn.Module):
    """The part of images that begins `top` pixels below their upper edge and `left` of their left one."""

    def __init__(self, top: int, left: int, height: int, width: int):
        super().__init__()
        self.top, self.left, self.height, self.width = top, left, height, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


class Resize(nn.Module):
    """Images of any size to `height` x `width`, bilinear; antialiased where they shrink, as torchvision does."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(
            x, size=[self.height, self.width], mode="bilinear", align_corners=False, antialias=True
        )


class Grey(nn.Module):
    """Colour images to one channel: luma by ITU-R BT.601, as PIL and torchvision weigh it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weights).sum(dim=1, keepdim=True)


class Colour(nn.Module):
    """Grey images to three equal channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.expand(-1, 3, -1, -1)


class Single(nn.Module):
    """Half or double precision to single."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()


class Rescale(nn.Module):
    """Images in [0, 1] to [low, high]."""

    def __init__(self, low: float, high: float):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (self.high - self.low) + self.low


class Normalize(nn.Module):
    """(x - mean) / std for each channel."""

    def __init__(self, mean: list[float], std: list[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class Wrapped(nn.Module):
    """`after(inner(before(x)))`."""

    def __init__(self, before: nn.Sequential, inner: nn.Module, after: nn.Sequential):
        super().__init__()
        self.before, self.inner, self.after = before, inner, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.inner(self.before(x)))


class WrappedIndex(Wrapped):
    """The same, for an inner module that returns a tuple or a list."""

    index: Final[int]

    def __init__(self, before: nn.Sequential, inner: nn.Module, after: nn.Sequential, index: int):
        super().__init__(before, inner, after)
        self.index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.inner(self.before(x))[self.index])


class WrappedKey(Wrapped):
    """The same, for an inner module that returns a dict."""

    key: Final[str]

    def __init__(self, before: nn.Sequential, inner: nn.Module, after: nn.Sequential, key: str):
        super().__init__(before, inner, after)
        self.key = key

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.inner(self.before(x))[self.key])


def activation(name: str) -> nn.Module:
    return {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh}[name]()


def wrap(inner: nn.Module, before: list[nn.Module], select: str | None, after: list[nn.Module]) -> nn.Module:
    """The module with these parts around it, or itself when there are none; in eval mode."""
    if select is None:
        return (
            Wrapped(nn.Sequential(*before), inner, nn.Sequential(*after)).eval()
            if before or after
            else inner.eval()
        )
    parts = nn.Sequential(*before), inner, nn.Sequential(*after)
    return (WrappedIndex(*parts, int(select)) if select.isdigit() else WrappedKey(*parts, select)).eval()


def prune(module: nn.Module, example: torch.Tensor) -> list[str]:
    """Takes out the submodules with weights that the forward pass of `example` neither calls nor reads.

    Returns their names. Left in, they would be parameters without a gradient, and data-parallel training waits for
    every one.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return []
    called: set[nn.Module] = set()
    hooks = [
        part.register_forward_hook(lambda part, *_: called.add(part))
        for part in module.modules()
        if not isinstance(part, torch.jit.ScriptModule)
    ]
    try:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        output = module(example)
        if output.requires_grad:
            output.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    removed = _remove_unused(module, "", called)
    module.zero_grad(set_to_none=True)
    return removed


def _remove_unused(parent: nn.Module, path: str, called: set[nn.Module]) -> list[str]:
    removed = []
    for name, child in list(parent.named_children()):
        if isinstance(
            child, torch.jit.ScriptModule
        ):  # closed: its parts cannot be taken out, nor its calls seen
            continue
        used = any(part in called for part in child.modules()) or any(
            p.grad is not None for p in child.parameters()
        )
        if not used and any(True for _ in child.parameters()):
            delattr(parent, name)
            removed.append(path + name)
        elif not isinstance(child, nn.ModuleList):  # its other items would be renumbered
            removed += _remove_unused(child, f"{path}{name}.", called)
    return removed


@dataclass
class Compiled:
    """A module as TorchScript, and in words how it became that."""

    module: torch.jit.ScriptModule
    how: str


def to_torchscript(module: nn.Module, example: torch.Tensor) -> Compiled:
    """The module as TorchScript: scripted if its code allows it, else traced on `example`. Raises `Refused`."""
    if isinstance(module, torch.jit.ScriptModule):
        return Compiled(module, "already TorchScript")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return Compiled(torch.jit.script(module), "scripted: its code runs as written, at any batch size")
        except Exception as error:  # the compiler raises many kinds, some of them plain Exception
            refusal = gist(error)
        caught.clear()
        try:
            traced = torch.jit.trace(module, example, check_trace=False)
        except Exception as error:
            raise Refused(
                f"the module can neither be scripted ({refusal}) nor traced ({gist(error)})"
            ) from error
    how = f"traced, because scripting it failed ({refusal}): branches that depend on the input are frozen"
    doubts = [
        str(warning.message) for warning in caught if issubclass(warning.category, torch.jit.TracerWarning)
    ]
    if doubts:
        how += f"; the tracer doubts {len(doubts)} place(s), the first: {doubts[0].splitlines()[0]}"
    return Compiled(traced, how)
