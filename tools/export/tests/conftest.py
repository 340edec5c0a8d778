"""Shared by the tests: the command line in this process, state dicts of the user's modules, and the real data."""

import os
from pathlib import Path

import pytest
import torch

from export import cli
from export.tests import user_models

torch.set_num_threads(1)  # small models: threads that wait for each other cost more than they give

SOURCE = Path(user_models.__file__)
CHECKOUT = Path(__file__).resolve().parents[3]

# What the commands for the models of user_models have in common.
VAE = ["--kind", "generator", "--output-range", "0,1", "--channels", 1, "--size", "5,6"]
DCGAN = ["--kind", "generator", "--output-range", "-1,1", "--channels", 1, "--size", 16]
IMAGES = ["--channels", 1, "--size", 8]


def fill(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every tensor random, the statistics of the norms too; in eval mode."""
    source = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=source)
            tensor.copy_(0.5 + noise.abs() if name.endswith("running_var") else 0.4 * noise)
    return module.eval()


@pytest.fixture
def saved(tmp_path):
    """Fills a module, saves its state dict and returns (module, path)."""

    def save(module, name="weights.pth", seed=0, **changes):
        weights = fill(module, seed).state_dict() | changes
        torch.save(weights, tmp_path / name)
        return module, tmp_path / name

    return save


@pytest.fixture
def export(tmp_path, capsys):
    """Runs the tool; returns (exit code, stdout, stderr). Afterwards no temporary file may be left."""

    def run(*arguments):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as usage:
            code = usage.code
        captured = capsys.readouterr()
        assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))
        return code, captured.out, captured.err

    return run


def user(name: str) -> str:
    return f"{SOURCE}:{name}"


@pytest.fixture(scope="session")
def third_party(tmp_path_factory) -> Path:
    """A folder with two models that somebody else trained, or, where it is absent, with ours in the same layouts.

    That is LETHE_TEST_DATA/third_party, by default ../shared/data/third_party beside the checkout. Ours are untrained.
    """
    folder = Path(os.environ.get("LETHE_TEST_DATA", CHECKOUT.parent / "shared" / "data")) / "third_party"
    if folder.is_dir():
        return folder
    folder = tmp_path_factory.mktemp("third_party")
    modules = {
        "mnist_vae_784_400_20.pth": user_models.Vae(pixels=784, hidden=400, latent=20),
        "mnist_lenet5.pth": user_models.LeNet(),
    }
    for name, module in modules.items():
        state = {key: 0.2 * tensor for key, tensor in fill(module).state_dict().items()}
        torch.save(state, folder / name, _use_new_zipfile_serialization=False)
    (folder / "UNTRAINED").touch()
    return folder
