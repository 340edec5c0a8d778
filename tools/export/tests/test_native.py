"""The reference architectures against the formulas written out, and the committed fixtures against the reference."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from export import fixtures, native
from export.tests.conftest import CHECKOUT

FOLDER = CHECKOUT / "crates" / "models" / "tests" / "fixtures"
OUTPUT = {"sigmoid": lambda x: 1 / (1 + torch.exp(-x)), "tanh": lambda x: 2 / (1 + torch.exp(-2 * x)) - 1}
BETWEEN = {
    "relu": lambda x: x.clamp(min=0),
    "tanh": OUTPUT["tanh"],
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.2 * x),
}


def upsample(x, weight):
    """A transposed convolution (kernel 4, stride 2, padding 1): a plain one of the input spread with zeros."""
    n, c, h, w = x.shape
    spread = torch.zeros(n, c, 2 * h - 1, 2 * w - 1, dtype=x.dtype)
    spread[:, :, ::2, ::2] = x
    return F.conv2d(F.pad(spread, (2, 2, 2, 2)), weight.flip(2, 3).transpose(0, 1))


def dcgan(a, t, z):
    x = torch.einsum("ni,iohw->nohw", z, t["layers.0.conv.weight"])
    for i in range(len(a["widths"])):
        if i > 0:
            x = upsample(x, t[f"layers.{i}.conv.weight"])
        mean, var, scale, shift = (
            t[f"layers.{i}.norm.{leaf}"].reshape(1, -1, 1, 1)
            for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        x = ((x - mean) / torch.sqrt(var + 1e-5) * scale + shift).clamp(min=0)
    return OUTPUT[a["output"]](upsample(x, t[f"layers.{len(a['widths'])}.conv.weight"]))


def mlp_decoder(a, t, z):
    x = z
    for i in range(len(a["hidden"]) + 1):
        x = BETWEEN[a["activation"]](x) if i > 0 else x
        x = x @ t[f"layers.{i}.weight"].T + t[f"layers.{i}.bias"]
    return OUTPUT[a["output"]](x).reshape(-1, *a["shape"])


def conv_decoder(a, t, z):
    x = (z @ t["stem.weight"].T + t["stem.bias"]).clamp(min=0).reshape(-1, a["stem"], a["base"], a["base"])
    for i in range(len(a["widths"])):
        x = (upsample(x, t[f"layers.{i}.weight"]) + t[f"layers.{i}.bias"].reshape(1, -1, 1, 1)).clamp(min=0)
    patches = F.unfold(x, 3, padding=1).transpose(1, 2) @ t["head.weight"].flatten(1).T + t["head.bias"]
    return OUTPUT[a["output"]](patches.transpose(1, 2).reshape(len(z), a["channels"], *x.shape[2:]))


FORMULAS = {"dcgan": dcgan, "mlp_decoder": mlp_decoder, "conv_decoder": conv_decoder}


@pytest.mark.parametrize("name", fixtures.ARCHITECTURES)
def test_reference_is_the_formula(name):
    architecture = fixtures.ARCHITECTURES[name]
    module = fixtures.randomise(native.build(architecture), 5)
    z = torch.randn(4, architecture["latent"])
    with torch.no_grad():
        images = module(z)
        doubles = {key: tensor.double() for key, tensor in native.tensors(module).items()}
        expected = FORMULAS[architecture["name"]](architecture, doubles, z.double())
    assert images.shape == (4, *native.image_shape(architecture))
    assert (images - expected).abs().max() < 1e-5
    assert expected.std() > 0.05


def test_loading_wants_exactly_the_names():
    architecture = fixtures.ARCHITECTURES["mlp_1"]
    tensors = native.tensors(native.build(architecture))
    with pytest.raises(ValueError, match="layers.0.bias"):
        native.load(architecture, {name: t for name, t in tensors.items() if name != "layers.0.bias"})


@pytest.mark.parametrize("name", fixtures.ARCHITECTURES)
def test_committed_native_fixtures(name):
    model = (FOLDER / f"{name}.safetensors").read_bytes()
    description = json.loads((FOLDER / f"{name}.safetensors.json").read_text())
    expected = safetensors.torch.load_file(FOLDER / f"{name}.expected.safetensors")
    assert description["sha256"] == hashlib.sha256(model).hexdigest()
    assert description["architecture"] == fixtures.ARCHITECTURES[name]
    with torch.no_grad():
        images = native.load(description["architecture"], safetensors.torch.load(model))(expected["z"])
    assert (images - expected["images"]).abs().max() < 1e-5


def test_committed_torchscript_fixtures():
    expected = safetensors.torch.load_file(FOLDER / "flat_generator.expected.safetensors")
    with torch.no_grad():
        images = torch.jit.load(FOLDER / "flat_generator.pt")(expected["z"])
        assert images.shape == (fixtures.SAMPLES, 144)
        assert (images - expected["images"]).abs().max() < 1e-5
        expected = safetensors.torch.load_file(FOLDER / "classifier.expected.safetensors")
        outputs = torch.jit.load(FOLDER / "classifier.pt")(expected["images"])
        assert (outputs - expected["outputs"]).abs().max() < 1e-5


def test_broken_fixtures_are_broken_as_they_say():
    assert not hasattr(torch.jit.load(FOLDER / "broken_no_forward.pt"), "forward")
    with pytest.raises(RuntimeError, match="constants.pkl"):
        torch.jit.load(FOLDER / "broken_pickled_module.pt")
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load_file(FOLDER / "broken_truncated.safetensors")
    flipped, whole = ((FOLDER / f"{name}.safetensors").read_bytes() for name in ("broken_bitflip", "mlp_1"))
    assert sum((a ^ b).bit_count() for a, b in zip(flipped, whole)) == 1
    assert (
        json.loads((FOLDER / "broken_bitflip.safetensors.json").read_text())["sha256"]
        == hashlib.sha256(whole).hexdigest()
    )


def test_fixtures_name_no_place(tmp_path):
    fixtures.main(str(tmp_path))
    for folder in (tmp_path, FOLDER):
        for path in folder.iterdir():
            assert path.stat().st_size <= 100_000
            assert str(CHECKOUT).encode() not in path.read_bytes()
