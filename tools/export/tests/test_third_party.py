"""Two models that somebody else trained, in the format before PyTorch 1.6, imported as the README says."""

import json

import safetensors.torch
import torch
import torch.nn.functional as F

from export import native
from export.tests import user_models
from export.tests.conftest import CHECKOUT, user

MNIST = ["--channels", 1, "--size", 28]


def test_vae_in_both_formats(tmp_path, third_party, export):
    weights = third_party / "mnist_vae_784_400_20.pth"
    common = [
        "--kind",
        "generator",
        "--output-range",
        "0,1",
        *MNIST,
        "--weights",
        weights,
        "--latent",
        20,
        "--module",
        user("Vae"),
        "--args",
        '{"pixels": 784, "hidden": 400, "latent": 20}',
        "--method",
        "decode",
    ]
    drops = [part for name in ("fc1", "fc21", "fc22") for part in ("--drop", name)]
    assert export(*common, "--out", tmp_path / "vae.pt")[0] == 0
    assert (
        export(*common, "--architecture", "mlp_decoder", *drops, "--out", tmp_path / "vae.safetensors")[0]
        == 0
    )
    architecture = json.loads((tmp_path / "vae.safetensors.json").read_text())["architecture"]
    assert architecture["hidden"] == [400] and architecture["latent"] == 20
    z = torch.randn(256, 20, generator=torch.Generator().manual_seed(7))
    state = torch.load(weights, weights_only=True)
    with torch.no_grad():
        scripted = torch.jit.load(tmp_path / "vae.pt")(z)
        ours = native.load(architecture, safetensors.torch.load_file(tmp_path / "vae.safetensors"))(
            z
        ).flatten(1)
        hidden = (z @ state["fc3.weight"].T + state["fc3.bias"]).clamp(min=0)
        expected = 1 / (1 + torch.exp(-(hidden @ state["fc4.weight"].T + state["fc4.bias"])))
    assert (scripted - ours).abs().max() < 1e-6
    assert (ours - expected).abs().max() < 1e-5
    if not (third_party / "UNTRAINED").exists():
        assert 0.05 < expected.mean() < 0.25  # mostly black, as digits are


def test_lenet_on_the_mnist_test_set(tmp_path, third_party, export):
    weights = third_party / "mnist_lenet5.pth"
    code, out, errors = export(
        "--kind",
        "classifier",
        *MNIST,
        "--classes",
        10,
        "--weights",
        weights,
        "--module",
        user("LeNet"),
        "--resize",
        "32,32",
        "--out",
        tmp_path / "lenet.pt",
    )
    assert code == 0, errors
    test_set = safetensors.torch.load_file(CHECKOUT / "examples" / "mnist" / "data" / "test.safetensors")
    images = test_set["images"].reshape(-1, 1, 28, 28).float() / 255
    module = user_models.LeNet()
    module.load_state_dict(torch.load(weights, weights_only=True))
    classifier = torch.jit.load(tmp_path / "lenet.pt")
    with torch.no_grad():
        found = torch.cat([classifier(part) for part in images.split(1000)])
        resized = F.interpolate(images[:100], size=(32, 32), mode="bilinear")  # growing: no antialiasing
        assert (found[:100] - module.eval()(resized)).abs().max() < 1e-4
    if not (third_party / "UNTRAINED").exists():
        accuracy = (found.argmax(1) == test_set["labels"]).float().mean().item()
        assert len(found) == 10_000 and accuracy >= 0.99, f"{accuracy:.2%} on the MNIST test set"
