"""Two models that somebody else trained, imported as the README says. Skipped, saying so, where the data is absent."""

import gzip
import json

import numpy as np
import safetensors.torch
import torch

from export import native
from export.tests.conftest import user

MNIST = ["--channels", 1, "--size", 28]


def idx(path, head):
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), dtype=np.uint8, offset=head)


def test_vae_in_both_formats(tmp_path, data, export):
    weights = data / "third_party" / "mnist_vae_784_400_20.pth"
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
    assert 0.05 < expected.mean() < 0.25  # mostly black, as digits are


def test_lenet_on_the_mnist_test_set(tmp_path, data, export):
    weights = data / "third_party" / "mnist_lenet5.pth"
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
    images = idx(data / "mnist" / "t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = torch.from_numpy(idx(data / "mnist" / "t10k-labels-idx1-ubyte.gz", 8).astype(np.int64))
    classifier = torch.jit.load(tmp_path / "lenet.pt")
    with torch.no_grad():
        found = torch.cat(
            [
                classifier(torch.from_numpy(part.astype(np.float32) / 255)).argmax(1)
                for part in np.split(images, 10)
            ]
        )
    accuracy = (found == labels).float().mean().item()
    print(f"third-party LeNet-5 on the MNIST test set: {accuracy:.2%}")
    assert len(labels) == 10_000 and accuracy >= 0.99
