"""Tiny artifacts with random weights, their inputs and their expected outputs, for tests in other languages.

`python tools/export/fixtures.py FOLDER` writes, for each sound model, the model, its sidecar and
`<name>.expected.safetensors` (`z` and `images` for a generator, `images` and `outputs` for a classifier), and four
broken ones, each with a sidecar that describes the model it should have been.
"""

import io
import sys
from pathlib import Path

import torch
from torch import nn

if not __package__:  # run as a script: find the package beside which this file lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export import artifact, native, sidecar  # noqa: E402

SAMPLES = 3
SOURCE = "random weights made by tools/export/fixtures.py, MIT OR Apache-2.0"

ARCHITECTURES = {
    "dcgan_1": {"name": "dcgan", "latent": 8, "base": 7, "widths": [8], "channels": 1, "output": "tanh"},
    "dcgan_3": {
        "name": "dcgan",
        "latent": 6,
        "base": 4,
        "widths": [16, 8, 4],
        "channels": 3,
        "output": "sigmoid",
    },
    "mlp_1": {
        "name": "mlp_decoder",
        "latent": 5,
        "hidden": [16],
        "activation": "relu",
        "output": "sigmoid",
        "shape": [1, 12, 12],
    },
    "mlp_2": {
        "name": "mlp_decoder",
        "latent": 4,
        "hidden": [12, 16],
        "activation": "leaky_relu",
        "output": "tanh",
        "shape": [3, 6, 8],
    },
    "mlp_tanh": {
        "name": "mlp_decoder",
        "latent": 3,
        "hidden": [9],
        "activation": "tanh",
        "output": "sigmoid",
        "shape": [1, 5, 5],
    },
    "conv_2": {
        "name": "conv_decoder",
        "latent": 6,
        "base": 4,
        "stem": 8,
        "widths": [8, 4],
        "channels": 1,
        "output": "sigmoid",
    },
    "conv_1": {
        "name": "conv_decoder",
        "latent": 3,
        "base": 3,
        "stem": 5,
        "widths": [6],
        "channels": 3,
        "output": "sigmoid",
    },
}


class FlatGenerator(nn.Module):
    """Latents [N, 5] to flat images [N, 1 * 12 * 12] in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 144), nn.Sigmoid())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.inner(z)


class Classifier(nn.Module):
    """Images [N, 1, H, W] in [0, 1] to three logits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean(dim=[2, 3]))


class NoForward(nn.Module):
    """Its archive holds the method `decode` and no `forward`."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 144)

    @torch.jit.export
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.fc(z))


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Weights that keep the signal's size, and statistics far from their defaults, so that forgetting one shows."""
    source = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=source)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.copy_(1.0 + 0.3 * noise(part.weight))
                part.running_mean.copy_(0.3 * noise(part.running_mean))
                part.running_var.copy_(0.5 + noise(part.running_var).abs())
            elif isinstance(part, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                part.weight.copy_(noise(part.weight) * (3.0 / taps(part)) ** 0.5)
            if getattr(part, "bias", None) is not None:
                part.bias.copy_(0.3 * noise(part.bias))
    return module.eval()


def taps(layer: nn.Module) -> float:
    """How many inputs one output of the layer sums."""
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * (4.0 if layer.stride == (2, 2) else 1.0)
    return layer.weight[0].numel()


def latents(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def generator_sidecar(
    model: bytes, format: str, architecture: dict | None, latent: int, shape, output_range
) -> bytes:
    return sidecar.encode(
        sidecar.describe(
            model,
            kind="generator",
            format=format,
            source=SOURCE,
            architecture=architecture,
            latent_shape=[latent],
            prior="normal",
            output_range=output_range,
            image_shape=shape,
        )
    )


def native_fixtures() -> dict[str, bytes]:
    files = {}
    for seed, (name, architecture) in enumerate(ARCHITECTURES.items()):
        module = randomise(native.build(architecture), seed)
        z = latents(SAMPLES, architecture["latent"], seed + 100)
        with torch.no_grad():
            expected = {"z": z, "images": module(z)}
        model = artifact.safetensors_bytes(native.tensors(module))
        files[f"{name}.safetensors"] = model
        files[f"{name}.safetensors.json"] = generator_sidecar(
            model,
            "safetensors",
            architecture,
            architecture["latent"],
            native.image_shape(architecture),
            native.OUTPUT_RANGE[architecture["output"]],
        )
        files[f"{name}.expected.safetensors"] = artifact.safetensors_bytes(expected)
    return files


def torchscript_fixtures() -> dict[str, bytes]:
    generator, classifier = randomise(FlatGenerator(), 20), randomise(Classifier(), 21).requires_grad_(False)
    z = latents(SAMPLES, 5, 120)
    with torch.no_grad():
        flat = generator(z)
        images = flat.reshape(SAMPLES, 1, 12, 12)
        expected = {"images": images, "outputs": classifier(images)}
    flat_model = artifact.torchscript_bytes(torch.jit.script(generator))
    classifier_model = artifact.torchscript_bytes(torch.jit.script(classifier))
    return {
        "flat_generator.pt": flat_model,
        "flat_generator.pt.json": generator_sidecar(
            flat_model, "torchscript", None, 5, (1, 12, 12), (0.0, 1.0)
        ),
        "flat_generator.expected.safetensors": artifact.safetensors_bytes({"z": z, "images": flat}),
        "classifier.pt": classifier_model,
        "classifier.pt.json": sidecar.encode(
            sidecar.describe(
                classifier_model, kind="classifier", format="torchscript", source=SOURCE, classes=3
            )
        ),
        "classifier.expected.safetensors": artifact.safetensors_bytes(expected),
    }


def broken_fixtures(sound: dict[str, bytes]) -> dict[str, bytes]:
    whole, description = sound["mlp_1.safetensors"], sound["mlp_1.safetensors.json"]
    flipped = bytearray(whole)
    flipped[-2] ^= 0x40  # an exponent bit of the last weight: still a readable file with a different model
    no_forward = artifact.torchscript_bytes(torch.jit.script(randomise(NoForward(), 22)))
    pickled = io.BytesIO()
    torch.save(randomise(nn.Sequential(nn.Linear(5, 144), nn.Sigmoid()), 23), pickled)
    files = {
        "broken_truncated.safetensors": whole[: len(whole) * 2 // 3],
        "broken_truncated.safetensors.json": description,
        "broken_bitflip.safetensors": bytes(flipped),
        "broken_bitflip.safetensors.json": description,
    }
    # A right digest for these two: what is wrong with them is not their bytes.
    for name, model in {
        "broken_no_forward.pt": no_forward,
        "broken_pickled_module.pt": artifact.strip(pickled),
    }.items():
        files[name] = model
        files[f"{name}.json"] = generator_sidecar(model, "torchscript", None, 5, (1, 12, 12), (0.0, 1.0))
    return files


def main(folder: str) -> None:
    sound = native_fixtures() | torchscript_fixtures()
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    artifact.write_atomically(
        {place / name: content for name, content in (sound | broken_fixtures(sound)).items()}
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/export/fixtures.py FOLDER")
    main(sys.argv[1])
