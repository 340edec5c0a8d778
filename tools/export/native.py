"""The native architectures in PyTorch: what a safetensors artifact means.

This is the reference for the Rust implementation: tensor names, order of operations and defaults are the format. An
architecture is the plain dict of the sidecar description, for example `{"name": "conv_decoder", "latent": 32,
"base": 7, "stem": 128, "widths": [64, 32], "channels": 1, "output": "sigmoid"}`.
"""

import torch
from torch import nn

# The range of each output activation; an artifact's declared range is this one.
OUTPUT_RANGE = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "leaky_relu": lambda: nn.LeakyReLU(0.2)}


def _output(name: str) -> nn.Module:
    return nn.Sigmoid() if name == "sigmoid" else nn.Tanh()


class DcganLayer(nn.Module):
    """One transposed convolution, and its norm except in the last layer."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, norm: bool):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=False)
        if norm:
            self.norm = nn.BatchNorm2d(outputs)
            self.after = nn.ReLU()
        else:
            self.norm = nn.Identity()
            self.after = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.norm(self.conv(x)))


class Dcgan(nn.Module):
    """Latents [N, latent] to images [N, channels, S, S], S = base * 2^len(widths)."""

    def __init__(self, latent: int, base: int, widths: list[int], channels: int, output: str):
        super().__init__()
        self.latent = latent
        ins = [latent, *widths]
        outs = [*widths, channels]
        last = len(widths)
        self.layers = nn.Sequential(
            *(
                DcganLayer(ins[i], outs[i], *((base, 1, 0) if i == 0 else (4, 2, 1)), norm=i < last)
                for i in range(last + 1)
            )
        )
        self.output = _output(output)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.output(self.layers(z.reshape(-1, self.latent, 1, 1)))


class MlpDecoder(nn.Module):
    """Latents [N, latent] to images [N, *shape] through linear layers."""

    def __init__(self, latent: int, hidden: list[int], activation: str, output: str, shape: list[int]):
        super().__init__()
        self.channels, self.height, self.width = shape
        sizes = [latent, *hidden, shape[0] * shape[1] * shape[2]]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.between = ACTIVATIONS[activation]()
        self.output = _output(output)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = z
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else self.between(x))
        return self.output(x).reshape(-1, self.channels, self.height, self.width)


class ConvDecoder(nn.Module):
    """Latents [N, latent] to images [N, channels, S, S], S = base * 2^len(widths)."""

    def __init__(self, latent: int, base: int, stem: int, widths: list[int], channels: int, output: str):
        super().__init__()
        self.planes, self.base = stem, base
        self.stem = nn.Linear(latent, stem * base * base)
        sizes = [stem, *widths]
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(sizes, sizes[1:]))
        self.head = nn.Conv2d(sizes[-1], channels, 3, 1, 1)
        self.output = _output(output)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(z)).reshape(-1, self.planes, self.base, self.base)
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.output(self.head(x))


CLASSES = {"dcgan": Dcgan, "mlp_decoder": MlpDecoder, "conv_decoder": ConvDecoder}


def build(architecture: dict) -> nn.Module:
    """The module of an architecture, with fresh weights, in eval mode."""
    settings = {key: value for key, value in architecture.items() if key != "name"}
    return CLASSES[architecture["name"]](**settings).eval()


def image_shape(architecture: dict) -> tuple[int, int, int]:
    """(channels, height, width) of the images."""
    if architecture["name"] == "mlp_decoder":
        return tuple(architecture["shape"])
    side = architecture["base"] * 2 ** len(architecture["widths"])
    return architecture["channels"], side, side


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of an artifact: the state dict without BatchNorm's step counters, which nothing reads."""
    return {
        name: tensor.detach().float().contiguous()
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def load(architecture: dict, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The module with these weights; the names and shapes must be exactly those of `tensors`."""
    module = build(architecture)
    want = {name: list(tensor.shape) for name, tensor in tensors(module).items()}
    have = {name: list(tensor.shape) for name, tensor in weights.items()}
    if want != have:
        raise ValueError(f"the tensors do not fit {architecture['name']}: wanted {want}, found {have}")
    module.load_state_dict(weights, strict=False)
    return module
