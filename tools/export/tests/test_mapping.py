"""Somebody's state dict to native tensors: the result must compute what the user's module computes."""

import pytest
import torch
from torch import nn

from export import mapping, native
from export import weights as reading
from export.refusal import Refused
from export.tests import user_models
from export.tests.conftest import fill


def same(module, mapped, z, reshape=None):
    with torch.no_grad():
        ours = native.load(mapped.architecture, mapped.tensors)(z)
        theirs = module(z.reshape(len(z), *reshape) if reshape else z)
    assert (ours - theirs.reshape(ours.shape)).abs().max() < 1e-5


def test_sequential_dcgan():
    module = fill(user_models.Dcgan(nz=6, widths=(12, 8, 8), channels=3))
    mapped = mapping.to_native("dcgan", module.state_dict(), output="tanh")
    assert mapped.architecture == {
        "name": "dcgan",
        "latent": 6,
        "base": 4,
        "widths": [12, 8, 8],
        "channels": 3,
        "output": "tanh",
    }
    assert native.image_shape(mapped.architecture) == (3, 32, 32)
    same(module, mapped, torch.randn(3, 6), (6, 1, 1))


def test_order_of_numbered_layers_in_safetensors(tmp_path):
    """Four equal widths, so that shapes alone cannot tell main.3 from main.12; the file sorts main.12 first."""
    import safetensors.torch

    module = fill(user_models.Dcgan(nz=4, widths=(4, 4, 4, 4, 4), channels=4, base=4))
    safetensors.torch.save_file(module.state_dict(), tmp_path / "w.safetensors")
    mapped = mapping.to_native("dcgan", reading.read(tmp_path / "w.safetensors").tensors, output="tanh")
    same(module, mapped, torch.randn(2, 4), (4, 1, 1))


def test_convolution_biases_fold_into_the_norms():
    module = fill(user_models.Dcgan(bias=True))
    mapped = mapping.to_native("dcgan", module.state_dict(), output="tanh")
    same(module, mapped, torch.randn(3, 6), (6, 1, 1))
    assert any("folded" in note for note in mapped.notes)


def test_last_bias_has_no_place():
    module = fill(user_models.Dcgan(last_bias=True))
    with pytest.raises(Refused, match="main.6.bias is not zero"):
        mapping.to_native("dcgan", module.state_dict(), output="tanh")


def test_norm_without_weights():
    module = fill(
        nn.Sequential(
            nn.ConvTranspose2d(5, 6, 4, 1, 0, bias=False),
            nn.BatchNorm2d(6, affine=False),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
    )
    same(module, mapping.to_native("dcgan", module.state_dict(), output="tanh"), torch.randn(3, 5), (5, 1, 1))


def test_decoder_of_a_vae():
    module = fill(user_models.Vae())
    weights = reading.rename(module.state_dict(), [], ["fc1", "fc21", "fc22"])
    mapped = mapping.to_native("mlp_decoder", weights, output="sigmoid", shape=(1, 5, 6))
    assert mapped.notes == ["fc3 -> layers.0, fc4 -> layers.1"]
    z = torch.randn(3, 4)
    with torch.no_grad():
        ours = native.load(mapped.architecture, mapped.tensors)(z)
    assert (ours.flatten(1) - module.decode(z)).abs().max() < 1e-6


def test_an_encoder_is_pointed_out():
    with pytest.raises(Refused, match="--drop fc1 --drop fc21 --drop fc22") as refused:
        mapping.to_native("mlp_decoder", user_models.Vae().state_dict(), output="sigmoid", shape=(1, 5, 6))
    assert "fc21.weight [4, 16]" in str(refused.value)


def test_linear_without_bias_and_another_activation():
    module = fill(nn.Sequential(nn.Linear(4, 9, bias=False), nn.LeakyReLU(0.2), nn.Linear(9, 12), nn.Tanh()))
    mapped = mapping.to_native(
        "mlp_decoder", module.state_dict(), output="tanh", activation="leaky_relu", shape=(1, 3, 4)
    )
    same(module, mapped, torch.randn(3, 4))


def test_convolutional_decoder():
    module = fill(user_models.ConvVae())
    mapped = mapping.to_native("conv_decoder", module.state_dict(), output="sigmoid")
    assert mapped.architecture == {
        "name": "conv_decoder",
        "latent": 3,
        "base": 4,
        "stem": 5,
        "widths": [6, 4],
        "channels": 3,
        "output": "sigmoid",
    }
    same(module, mapped, torch.randn(3, 3))


def test_map_corrects_the_order():
    """Layers listed backwards: wrong by order, right once named."""
    module = fill(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 12), nn.Sigmoid())
    )
    state = module.state_dict()
    backwards = {
        name: state[name] for name in ("2.weight", "2.bias", "0.weight", "0.bias", "4.weight", "4.bias")
    }
    weights = reading.rename(backwards, [("0", "layers.0"), ("2", "layers.1")], [])
    same(
        module,
        mapping.to_native("mlp_decoder", weights, output="sigmoid", shape=(1, 3, 4)),
        torch.randn(3, 4),
    )


@pytest.mark.parametrize(
    ("architecture", "module", "message"),
    [
        ("dcgan", user_models.Vae(), "fc1.weight \\[16, 30\\]"),
        ("mlp_decoder", user_models.Dcgan(), "no place for:.*main.0.weight"),
        ("mlp_decoder", nn.Linear(4, 31), "makes 31 values, but an image of shape \\[1, 5, 6\\] has 30"),
        ("conv_decoder", user_models.Dcgan(), "no place for:.*main.1.weight \\[12\\]"),
        (
            "dcgan",
            nn.Sequential(
                nn.ConvTranspose2d(4, 4, 4), nn.ConvTranspose2d(4, 1, 4), nn.BatchNorm2d(1), nn.BatchNorm2d(1)
            ),
            "2 convolutions and 2 norms",
        ),
        (
            "dcgan",
            nn.Sequential(
                nn.ConvTranspose2d(5, 4, 4, bias=False),
                nn.BatchNorm2d(4),
                nn.ConvTranspose2d(4, 1, 3, bias=False),
            ),
            "2.weight \\[4, 1, 3, 3\\], but layers.1.conv.weight is \\[4, 1, 4, 4\\]",
        ),
        (
            "conv_decoder",
            nn.Sequential(nn.Linear(4, 33), nn.ConvTranspose2d(2, 4, 4, 2, 1), nn.Conv2d(4, 1, 3)),
            "33 values",
        ),
    ],
)
def test_refusals_list_tensors_and_shapes(architecture, module, message):
    with pytest.raises(Refused, match=f"(?s){message}"):
        mapping.to_native(architecture, module.state_dict(), output="tanh", shape=(1, 5, 6))
