"""Runs an artifact on samples and compares it with the module it was made from.

Every check either adds a line to the report or raises `Refused`. What is checked is the artifact as read back from its
bytes, not the object in memory that they were written from.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from .refusal import Refused, gist

# Largest difference allowed between the artifact and the original module, relative to outputs larger than 1.
EQUAL = 1e-5
# The same between one batch size and another: other kernels sum in another order.
BATCH = 1e-4
BATCH_SIZES = (1, 3, 8)

Model = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Report:
    lines: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        self.lines.append((name, text))


def latents(shape: list[int], prior: str | tuple[float, float], count: int) -> torch.Tensor:
    """Latents [count, *shape] from the prior; the same ones each time."""
    source = torch.Generator().manual_seed(0)
    if prior == "normal":
        return torch.randn(count, *shape, generator=source)
    low, high = prior
    return low + (high - low) * torch.rand(count, *shape, generator=source)


def images(channels: int, height: int, width: int, count: int) -> torch.Tensor:
    """Images [count, channels, height, width] in [0, 1]: one black, one white, then noise and soft blobs in turn."""
    source = torch.Generator().manual_seed(0)
    noise = torch.rand(count, channels, height, width, generator=source)
    coarse = torch.rand(count, channels, 4, 4, generator=source)
    blobs = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    mixed = torch.where(torch.arange(count).reshape(-1, 1, 1, 1) % 2 == 0, noise, blobs)
    mixed[0], mixed[1] = 0.0, 1.0
    return mixed


def run(model: Model, samples: torch.Tensor, what: str, remedy: str, batch: int = 8) -> torch.Tensor:
    """The outputs for all samples. Raises `Refused` when the module fails or does not return one tensor of N rows."""
    outputs = []
    with torch.no_grad():
        for part in samples.split(batch):
            try:
                output = model(part.clone())  # a module that changes its input changes its own copy
            except Exception as error:  # the user's own code may raise anything
                raise Refused(
                    f"{what} fails on inputs of shape {list(part.shape)} ({gist(error)}): {_advice(str(error), remedy)}"
                ) from error
            if not isinstance(output, torch.Tensor):
                raise Refused(
                    f"{what} returns a {type(output).__name__}{_choices(output)}: choose one with --select"
                )
            if output.dim() == 0 or output.shape[0] != part.shape[0]:
                raise Refused(
                    f"{what} returns {list(output.shape)} for {part.shape[0]} inputs: it must return one row for "
                    "each input, [N, ...] for N of them; add a class that reshapes"
                )
            if not output.is_floating_point():
                raise Refused(
                    f"{what} returns {_dtype(output)}: it must return floating-point numbers, so leave out its last "
                    "step (a rounding to bytes, an argmax)"
                )
            outputs.append(output)
    return torch.cat(outputs)


def _dtype(output: torch.Tensor) -> str:
    return str(output.dtype).removeprefix("torch.")


def _advice(error: str, remedy: str) -> str:
    if "positional argument" in error or "Argument" in error and "not provided" in error:
        return "it must take one tensor; write a class or function around it that fixes the other inputs"
    if "CUDA" in error or "cuda" in error:
        return (
            "a GPU is written into it: use its inputs' device, as in torch.zeros(n, device=x.device), or trace it "
            "again on the CPU"
        )
    return remedy


def _choices(output: object) -> str:
    if isinstance(output, dict):
        return f" with the keys {', '.join(map(str, output))}"
    return f" of {len(output)}" if isinstance(output, (tuple, list)) else ""


def eval_mode(module: nn.Module) -> None:
    training = [name or "the module itself" for name, part in module.named_modules() if part.training]
    if training:
        raise Refused(f"the artifact is in training mode: {', '.join(training[:5])}")


def finite(output: torch.Tensor, report: Report) -> None:
    bad = (~torch.isfinite(output)).reshape(output.shape[0], -1).any(dim=1)
    if bad.any():
        raise Refused(
            f"{int(bad.sum())} of {len(bad)} samples give NaN or infinite outputs, first sample "
            f"{int(bad.int().argmax())}: the module overflows or its weights are damaged"
        )
    report.add("finite", f"{len(bad)} samples")


def image_shape(output: torch.Tensor, shape: tuple[int, int, int], report: Report) -> None:
    """Images are [N, C, H, W], flat [N, C * H * W], or grey ones [N, H, W]."""
    found, wanted = tuple(output.shape[1:]), tuple(shape)
    grey = wanted[0] == 1 and found == wanted[1:]
    if not grey and found not in (wanted, (wanted[0] * wanted[1] * wanted[2],)):
        raise Refused(
            f"the generator's output has the shape [N, {', '.join(map(str, found))}], declared is [N, "
            f"{', '.join(map(str, wanted))}] or the same flat: correct --channels and --size, or reshape in your class"
        )
    report.add("shape", f"[N, {', '.join(map(str, found))}]")


def image_range(output: torch.Tensor, declared: tuple[float, float], clamp: bool, report: Report) -> None:
    (low, high), (least, most) = declared, (output.min().item(), output.max().item())
    slack = 1e-4 * (high - low)
    beyond = ((output < low - slack) | (output > high + slack)).float().mean().item()
    if beyond > 0 and not clamp:
        raise Refused(
            f"images reach from {least:.4g} to {most:.4g}, outside of the declared range [{low:g}, {high:g}] with "
            f"{beyond:.2%} of their values:\n  add --clamp if they are meant to be cut off there, as when they are "
            "saved; add --activation if the module ends before it;\n  or declare another --output-range"
        )
    if beyond > 0.1:
        report.warnings.append(
            f"{beyond:.1%} of the values are outside of [{low:g}, {high:g}] and will be cut off: is --output-range right?"
        )
    if min(most, high) - max(least, low) < 0.55 * (high - low):
        report.warnings.append(
            f"images use only {least:.3g} to {most:.3g} of [{low:g}, {high:g}]: is --output-range right?"
        )
    cut = f", clamped ({beyond:.2%} of the values are outside)" if clamp else ""
    report.add("range", f"{least:.4g} to {most:.4g}, declared [{low:g}, {high:g}]{cut}")


def label_shape(kind: str, output: torch.Tensor, classes: int | None, report: Report) -> int:
    """The number of classes, scores or features in each row."""
    shape, width = list(output.shape), output.shape[1] if output.dim() > 1 else 1
    if kind == "features" and output.dim() != 2:
        raise Refused(f"features must be [N, D], found {shape}: flatten or pool them in your class")
    if output.dim() > 2:
        raise Refused(
            f"a {kind} must return [N, K] or [N], found {shape}: choose with --select or pool in your class"
        )
    if kind == "scorer" and width != 1:
        raise Refused(
            f"a scorer must return one number for each image, [N] or [N, 1], found {shape}: choose a class of a "
            "classifier in the job instead"
        )
    if kind == "classifier" and classes is not None and classes != width:
        raise Refused(
            f"the classifier has {width} output(s), declared are --classes {classes}: correct one of them"
        )
    report.add("shape", f"[N{', ' + str(width) if output.dim() == 2 else ''}]")
    return width


def class_numbers(output: torch.Tensor, report: Report) -> str:
    """Whether a classifier gives `logits` or a `probability`, as the job spec calls them."""
    rows = output.reshape(output.shape[0], -1)
    within = rows.min() >= 0 and rows.max() <= 1
    if rows.shape[1] == 1:
        found = "probability" if within else "logits"
        why = "one number, within [0, 1]" if within else "one number, not within [0, 1]"
    else:
        sums = within and (rows.sum(dim=1) - 1).abs().max() < 1e-3
        found = "probability" if sums else "logits"
        why = "within [0, 1], each row sums to 1" if sums else "rows do not sum to 1"
    report.add("output", f"{found}: {why}")
    return found


def varied(output: torch.Tensor, what: str, report: Report) -> None:
    if (output - output[:1]).abs().max() < 1e-6:
        report.warnings.append(f"{what} are the same for all {len(output)} samples")


def repeatable(model: Model, samples: torch.Tensor, output: torch.Tensor, report: Report) -> None:
    again = run(model, samples, "the artifact", "it did not before")
    if distance(again, output) > EQUAL:
        raise Refused(
            f"the same input gives outputs that differ by {distance(again, output):.2g}: take the noise or the dropout "
            "out of the module, or make it an input that it fixes itself"
        )
    report.add("repeats", "the same input gives the same output")


def batch_independent(model: Model, samples: torch.Tensor, output: torch.Tensor, report: Report) -> None:
    """A sample's output must not depend on its neighbours, nor, in a traced module, on the batch size of the trace."""
    largest = 0.0
    for size in BATCH_SIZES:
        part = run(model, samples[: 2 * size], "the artifact", "it must take any batch size", batch=size)
        largest = max(largest, distance(part, output[: 2 * size]))
    if largest > BATCH:
        raise Refused(
            f"a sample's output depends on the batch it is in (by {largest:.2g}, batches of {BATCH_SIZES}): a norm in "
            "training mode, or a batch size written into the module"
        )
    report.add("batch", f"batches of {', '.join(map(str, BATCH_SIZES))} agree to {largest:.1g}")


def equal(output: torch.Tensor, original: torch.Tensor, report: Report) -> None:
    if output.numel() != original.numel():
        raise Refused(
            f"the artifact returns {list(output.shape)}, the original module {list(original.shape)}"
        )
    largest = distance(output, original.reshape(output.shape))
    if not largest <= EQUAL:
        raise Refused(
            f"the artifact's output differs from the original module's by {largest:.2g} (allowed {EQUAL:g}): the "
            "module does something that this format cannot hold"
        )
    report.add("equal", f"to the original module within {largest:.1g}")


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference, relative to the largest value where that exceeds 1."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1.0)).item()


def trainable(module: nn.Module, samples: torch.Tensor, report: Report) -> None:
    """Every parameter must receive a finite gradient: data-parallel training waits for each of them."""
    parameters = dict(module.named_parameters())
    if not parameters:
        raise Refused(
            "the generator has no parameters to train: it was frozen, or its weights are constants of a trace"
        )
    output = module(samples[:8].clone())
    if not output.requires_grad:
        raise Refused(
            "no gradient reaches the generator's parameters: take torch.no_grad(), .detach() and "
            "torch.inference_mode() out of its forward pass"
        )
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    without = [name for name, parameter in parameters.items() if parameter.grad is None]
    if without:
        raise Refused(
            f"these parameters have no part in the output: {', '.join(without)}. Take them out of the class; for an "
            "archive, make it again without them, or give it as --weights with its class as --module FILE.py:CLASS"
        )
    bad = [name for name, parameter in parameters.items() if not torch.isfinite(parameter.grad).all()]
    if bad:
        raise Refused(f"the gradient of these parameters is NaN or infinite: {', '.join(bad)}")
    count = sum(parameter.numel() for parameter in parameters.values())
    report.add("trainable", f"{len(parameters)} parameters ({count:,} numbers) receive a gradient")
