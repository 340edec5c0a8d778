"""Finds a native architecture in somebody's state dict, by the order and the shapes of its layers.

Only weights are seen here, so what they cannot show (stride, eps, where an activation stands) is taken from the
architecture's definition; comparing with the user's module on samples, when it is given, is the business of `check`.
"""

from dataclasses import dataclass, field

import torch

from . import native
from .refusal import Refused, listing


@dataclass
class Layer:
    """The tensors of one module of the user's: `name` is their common prefix, the keys of `tensors` the last parts."""

    name: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        weight = self.tensors.get("weight")
        if "running_mean" in self.tensors and self.tensors.keys() <= {
            "weight",
            "bias",
            "running_mean",
            "running_var",
        }:
            return "norm"
        if weight is None or not self.tensors.keys() <= {"weight", "bias"}:
            return "other"
        return {2: "linear", 4: "conv"}.get(weight.dim(), "other")

    def listed(self) -> dict[str, torch.Tensor]:
        return {f"{self.name}.{leaf}" if self.name else leaf: tensor for leaf, tensor in self.tensors.items()}


@dataclass
class Mapped:
    """A native architecture with its tensors, and in words which of the user's layers became which."""

    architecture: dict
    tensors: dict[str, torch.Tensor]
    notes: list[str]


def to_native(
    name: str,
    weights: dict[str, torch.Tensor],
    *,
    output: str,
    activation: str = "relu",
    shape: tuple[int, int, int] | None = None,
) -> Mapped:
    """Maps a state dict to the architecture `name`. Raises `Refused` with every tensor that has no place in it.

    `output` and `activation` are not visible in the weights, nor is `shape` (channels, height, width), which only
    mlp_decoder needs.
    """
    layers = _layers(weights)
    if name == "dcgan":
        return _dcgan(layers, output)
    if name == "mlp_decoder":
        return _mlp_decoder(layers, output, activation, shape)
    return _conv_decoder(layers, output)


def _layers(weights: dict[str, torch.Tensor]) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for name, tensor in weights.items():
        prefix, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            layers.setdefault(prefix, Layer(prefix)).tensors[leaf] = tensor
    return list(layers.values())


def _take(architecture: str, layers: list[Layer], **wanted: int | None) -> list[list[Layer]]:
    """The layers by kind, in order, in the order of `wanted`; a number there is how many there must be."""
    extra = [layer for layer in layers if layer.kind not in wanted]
    if extra:
        raise Refused(
            f"{architecture} has no place for:\n{_listing(extra)}\n  leave them out with --drop PREFIX, or export "
            "the whole module with --format torchscript"
        )
    taken = [[layer for layer in layers if layer.kind == kind] for kind in wanted]
    for found, (kind, count) in zip(taken, wanted.items()):
        if not found or (count is not None and len(found) != count):
            raise Refused(
                f"{architecture} needs {count or 'at least one'} {kind} layer(s), found {len(found)} among:\n"
                f"{_listing(layers)}\n  leave out what is not the generator with --drop PREFIX"
            )
    return taken


def _listing(layers: list[Layer]) -> str:
    return listing({name: tensor for layer in layers for name, tensor in layer.listed().items()})


def _assign(slots: list[str], layers: list[Layer]) -> dict[str, Layer]:
    """A layer that already has a slot's name keeps it (that is what --map is for); the others follow in order."""
    named = {layer.name: layer for layer in layers if layer.name in slots}
    rest = iter(layer for layer in layers if layer.name not in slots)
    return {slot: named[slot] if slot in named else next(rest) for slot in slots}


def _finish(architecture: dict, placed: dict[str, Layer], notes: list[str]) -> Mapped:
    """Checks every shape against the architecture, fills in biases that the user's layers did without."""
    try:
        want = native.tensors(native.build(architecture))
    except (RuntimeError, ValueError) as error:
        raise Refused(f"these layers do not make a {architecture}: {error}") from error
    tensors, wrong = {}, []
    for name, expected in want.items():
        slot, _, leaf = name.rpartition(".")
        layer = placed[slot]
        tensor = layer.tensors.get(leaf)
        if tensor is None:
            tensor = torch.ones_like(expected) if leaf == "weight" else torch.zeros_like(expected)
        if tensor.shape != expected.shape:
            wrong.append(
                f"    {layer.name}.{leaf} {list(tensor.shape)}, but {name} is {list(expected.shape)}"
            )
        tensors[name] = tensor.contiguous()
    if wrong:
        raise Refused(
            f"the shapes are not those of a {architecture['name']}:\n"
            + "\n".join(wrong)
            + "\n  correct the order with --map OLD=NEW, leave out other parts with --drop PREFIX, or export the "
            "module with --format torchscript"
        )
    moved = [f"{layer.name} -> {slot}" for slot, layer in placed.items() if layer.name != slot]
    return Mapped(architecture, tensors, ([", ".join(moved)] if moved else []) + notes)


def _dcgan(layers: list[Layer], output: str) -> Mapped:
    convs, norms = _take("dcgan", layers, conv=None, norm=None)
    last = len(convs) - 1
    if len(norms) != last:
        raise Refused(
            f"dcgan has a norm after every convolution but the last, found {len(convs)} convolutions and "
            f"{len(norms)} norms:\n{_listing(layers)}"
        )
    placed = _assign([f"layers.{i}.conv" for i in range(last + 1)], convs)
    placed |= _assign([f"layers.{i}.norm" for i in range(last)], norms)
    shapes = [placed[f"layers.{i}.conv"].tensors["weight"].shape for i in range(last + 1)]
    architecture = {
        "name": "dcgan",
        "latent": shapes[0][0],
        "base": shapes[0][2],
        "widths": [shape[1] for shape in shapes[:last]],
        "channels": shapes[last][1],
        "output": output,
    }
    return _finish(architecture, placed, _fold_biases(placed, last))


def _fold_biases(placed: dict[str, Layer], last: int) -> list[str]:
    """dcgan's convolutions have no bias. One before a norm only moves the norm's mean: (x + b) - m = x - (m - b)."""
    notes = []
    for i in range(last + 1):
        conv = placed[f"layers.{i}.conv"]
        bias = conv.tensors.get("bias")
        if bias is None or not bias.any():
            continue
        if i == last:
            raise Refused(
                f"the last convolution of dcgan has no bias, but {conv.name}.bias is not zero: export the module "
                "with --format torchscript"
            )
        norm = placed[f"layers.{i}.norm"]
        mean = norm.tensors["running_mean"]
        if mean.shape == bias.shape:  # a norm of another width is refused with all the shapes
            placed[f"layers.{i}.norm"] = Layer(norm.name, norm.tensors | {"running_mean": mean - bias})
            notes.append(f"{conv.name}.bias folded into {norm.name}.running_mean")
    return notes


def _mlp_decoder(
    layers: list[Layer], output: str, activation: str, shape: tuple[int, int, int] | None
) -> Mapped:
    if shape is None:
        raise Refused("mlp_decoder's weights do not show the shape of its images: add --channels and --size")
    (linears,) = _take("mlp_decoder", layers, linear=None)
    placed = _assign([f"layers.{i}" for i in range(len(linears))], linears)
    order = list(placed.values())
    sizes = [tuple(reversed(layer.tensors["weight"].shape)) for layer in order]
    first = next((i for i in range(len(order) - 1, 0, -1) if sizes[i - 1][1] != sizes[i][0]), 0)
    if first > 0:
        start = min(range(first, len(order)), key=lambda i: sizes[i][0])  # latents are the narrowest place
        drops = " ".join(f"--drop {layer.name}" for layer in order[:start])
        raise Refused(
            f"these layers do not follow each other:\n{_listing(order)}\n  an encoder? The last {len(order) - start} "
            f"alone make a decoder of {sizes[start][0]} latents: {drops}"
        )
    pixels = shape[0] * shape[1] * shape[2]
    if sizes[-1][1] != pixels:
        raise Refused(
            f"{order[-1].name} makes {sizes[-1][1]} values, but an image of shape {list(shape)} has {pixels}: "
            "correct --channels and --size"
        )
    architecture = {
        "name": "mlp_decoder",
        "latent": sizes[0][0],
        "hidden": [size[1] for size in sizes[:-1]],
        "activation": activation,
        "output": output,
        "shape": list(shape),
    }
    return _finish(architecture, placed, [])


def _conv_decoder(layers: list[Layer], output: str) -> Mapped:
    (stem,), convs = _take("conv_decoder", layers, linear=1, conv=None)
    slots = [f"layers.{i}" for i in range(len(convs) - 1)] + ["head"]
    placed = {"stem": stem} | _assign(slots, convs)
    weights = [placed[slot].tensors["weight"].shape for slot in slots]
    # A transposed convolution's weight begins with its inputs, the head's (a plain one) with its outputs.
    planes = weights[0][0] if len(weights) > 1 else weights[0][1]
    units, latent = stem.tensors["weight"].shape
    base = round((units / planes) ** 0.5)
    if planes * base * base != units:
        raise Refused(
            f"{stem.name} makes {units} values, which are not {planes} square planes for {placed[slots[0]].name}:\n"
            f"{_listing(layers)}"
        )
    architecture = {
        "name": "conv_decoder",
        "latent": latent,
        "base": base,
        "stem": planes,
        "widths": [shape[1] for shape in weights[:-1]],
        "channels": weights[-1][0],
        "output": output,
    }
    return _finish(architecture, placed, [])
