"""Weights in every shape that users bring, and what is refused."""

import argparse
import collections
import os
import pickle
import shlex
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from export import inert, weights
from export import module as source
from export.refusal import Refused
from export.tests import user_models
from export.tests.conftest import fill


def equal(read, module):
    found, state = read.tensors, module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("legacy", [True, False])
def test_state_dict(tmp_path, legacy):
    module = fill(user_models.Dcgan())
    torch.save(module.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    equal(weights.read(tmp_path / "w.pth"), module)


def test_inside_a_checkpoint_of_a_data_parallel_module(tmp_path):
    module = fill(user_models.Dcgan())
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 3, "netG": state}, tmp_path / "w.pth")
    equal(weights.read(tmp_path / "w.pth"), module)


def test_a_checkpoint_of_two_networks_wants_a_choice(tmp_path):
    module, other = fill(user_models.Dcgan(), 1), fill(user_models.Vae(), 2)
    torch.save({"G": module.state_dict(), "D": other.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(Refused, match="--entry, one of: G, D"):
        weights.read(tmp_path / "w.pth")
    with pytest.raises(Refused, match="no state dict called 'H'; it has: G, D"):
        weights.read(tmp_path / "w.pth", "H")
    equal(weights.read(tmp_path / "w.pth", "G"), module)


def test_half_precision_becomes_single(tmp_path):
    torch.save({"a.weight": torch.tensor([[0.5]], dtype=torch.bfloat16)}, tmp_path / "w.pth")
    assert weights.read(tmp_path / "w.pth").tensors["a.weight"].dtype == torch.float32


def main_class(tmp_path, **how):
    """Saves a whole module of a class of `__main__`, as a script or a notebook does; returns its state dict's file."""
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.body = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))\n"
        "        self.register_buffer('passing', torch.zeros(2), persistent=False)\n"
    )
    script = (tmp_path / "net.py").read_text() + (
        f"\nnet = Net()\ntorch.save(net.state_dict(), 'state.pth')\ntorch.save(net, 'whole.pth', **{how})\n"
    )
    (tmp_path / "train.py").write_text(script)
    subprocess.run([sys.executable, "train.py"], check=True, cwd=tmp_path, timeout=120)
    return torch.load(tmp_path / "state.pth", weights_only=True)


def test_a_pickled_module_gives_up_its_tensors(tmp_path):
    """Its class is not there (it was one of `__main__`), and is not needed."""
    state = main_class(tmp_path)
    read = weights.read(tmp_path / "whole.pth")
    assert read.what == "7 tensors of a pickled __main__.Net (its code was not run)"
    assert read.tensors.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in read.tensors.items())


def test_the_command_for_what_cannot_be_taken_apart_works(tmp_path):
    """A whole module in the format before PyTorch 1.6, of a class of `__main__`: runs the very command of the message."""
    state = main_class(tmp_path, _use_new_zipfile_serialization=False)
    path = tmp_path / "it's whole.pt"
    (tmp_path / "whole.pth").rename(path)
    with pytest.raises(Refused, match="never loads those") as refused:
        weights.read(path)
    command = next(line for line in str(refused.value).splitlines() if line.strip().startswith("python -c"))
    program = [part.replace("FILE", "net") for part in shlex.split(command)]
    subprocess.run([sys.executable, *program[1:]], check=True, cwd=tmp_path, timeout=120)
    read = weights.read(tmp_path / "it's whole.state.pth").tensors
    assert read.keys() == state.keys() and all(
        torch.equal(tensor, state[name]) for name, tensor in read.items()
    )


@pytest.mark.parametrize("legacy", [True, False])
def test_a_checkpoint_of_everything_a_training_script_saves(tmp_path, legacy):
    """An optimiser, a schedule, arguments, NumPy numbers: read beside the tensors, their code never run."""
    module = fill(user_models.Dcgan())
    optimiser = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 6, 1, 1)).sum().backward()
    optimiser.step()
    torch.save(
        {
            "epoch": np.float64(3),
            "best": np.int64(7),
            "opt": argparse.Namespace(lr=2e-4, betas=(0.5, 0.999)),
            "schedule": torch.optim.lr_scheduler.StepLR(optimiser, 3).state_dict(),
            "optimizer": optimiser.state_dict(),
            "history": collections.defaultdict(list),
            "netG": nn.DataParallel(module).state_dict(),
        },
        tmp_path / "w.pth",
        _use_new_zipfile_serialization=not legacy,
    )
    read = weights.read(tmp_path / "w.pth")
    assert read.what == "13 tensors at netG"
    equal(read, module)


def test_deeper_and_flat_checkpoints(tmp_path):
    module, other = fill(user_models.Dcgan(), 1), fill(user_models.Vae(), 2)
    torch.save({"state": {"G": module.state_dict(), "D": other.state_dict()}}, tmp_path / "w.pth")
    with pytest.raises(Refused, match="--entry, one of: state.G, state.D"):
        weights.read(tmp_path / "w.pth")
    equal(weights.read(tmp_path / "w.pth", "state.G"), module)
    torch.save({**module.state_dict(), "epoch": 3}, tmp_path / "flat.pth")
    read = weights.read(tmp_path / "flat.pth")
    assert read.what == "13 tensors, without epoch"
    equal(read, module)


def test_a_compiled_and_distributed_module(tmp_path):
    module = fill(user_models.Vae())
    state = {f"_orig_mod.module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    equal(weights.read(tmp_path / "w.pth"), module)


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __init__(self, run):
            self.run = run

        def __reduce__(self):
            return self.run

    before = set(torch.serialization.get_safe_globals())
    ran = str(tmp_path / "ran")
    for run in ((open, (ran, "w")), (os.system, (f"touch {ran}",)), (exec, (f"open({ran!r}, 'w')",))):
        torch.save({"a": Bomb(run), "w": torch.zeros(1)}, tmp_path / "w.pth")
        try:
            read = weights.read(tmp_path / "w.pth").tensors
            assert list(read) == ["w"]
        except Refused as refused:
            assert "never loads those" in str(refused)
        with pytest.raises(Refused, match="no TorchScript archive: give it as --weights"):
            source.load(str(tmp_path / "w.pth"), None)
        assert not (tmp_path / "ran").exists()
    assert set(torch.serialization.get_safe_globals()) == before, (
        "the inert classes are forgotten after the reading"
    )


def test_what_is_left_of_a_pickled_object():
    assert inert.module_tensors(torch.nn.Linear(1, 1)) is None and inert.module_tensors({"a": 1}) is None


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path, kind, part):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    state = fill(user_models.Vae()).state_dict()
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(Refused, match="truncated") as refused:
        weights.read(path)
    assert "pickle" not in str(refused.value).partition("(")[0]


STRANGERS = {
    "text": (b"These are my weights, honestly.\n" * 10, "not a PyTorch file"),
    "empty": (b"", "is empty: copy it again"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "page": (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "a web page.*download it again"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras writes"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(100), "a NumPy array"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "unpack it first"),
    "pickle": (pickle.dumps({"a": [1, 2, 3]}), "written by pickle.dump, not by torch.save"),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_weights_are_recognised(tmp_path, name, suffix):
    content, message = STRANGERS[name]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    if name == "text" and suffix == ".safetensors":
        message = "truncated or damaged"
    with pytest.raises(Refused, match=f"(?s){message}"):
        weights.read(path)


def test_objects_that_hold_no_weights(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(Refused, match="holds no tensors by name, but a Tensor"):
        weights.read(tmp_path / "w.pth")
    torch.save({"a.weight": np.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(Refused, match="but a dict of a.weight .NumPy array."):
        weights.read(tmp_path / "w.pth")
    with pytest.raises(Refused, match="there is no weights file"):
        weights.read(tmp_path / "absent.pth")
    with pytest.raises(Refused, match="is a folder: name the weights file in it"):
        weights.read(tmp_path)
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(Refused, match="is an ONNX graph"):
        weights.read(tmp_path / "w.onnx")


def test_other_files_of_pytorch(tmp_path):
    module = fill(user_models.Logits())
    program = torch.export.export(module, (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "p.pt2")
    with pytest.raises(Refused, match=r"(?s)torch.export \(.pt2\).*torch.export.load"):
        weights.read(tmp_path / "p.pt2")
    torch.save(module.state_dict(), tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(Refused, match="pickle_protocol=4.*save it again"):
        weights.read(tmp_path / "w.pth")
    safetensors.torch.save_file(module.state_dict(), tmp_path / "named.pt")
    equal(weights.read(tmp_path / "named.pt"), module)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_numbers_are_named(tmp_path, value):
    state = fill(user_models.Vae()).state_dict()
    state["fc3.bias"][2] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(Refused, match="fc3.bias \\[16\\]") as refused:
        weights.read(tmp_path / "w.pth")
    assert "fc4" not in str(refused.value)


def test_the_weights_of_a_torchscript_archive(tmp_path):
    module = fill(user_models.Logits())
    torch.jit.script(module).save(tmp_path / "m.pt")
    read = weights.read(tmp_path / "m.pt")
    assert read.what == "2 tensors of a TorchScript archive"
    equal(read, module)


def test_renaming_takes_whole_parts_of_names():
    found = {name: torch.zeros(1) for name in ("fc2.weight", "fc21.weight", "g.fc2.weight")}
    assert list(weights.rename(found, [("g", "h")], ["fc2"])) == ["fc21.weight", "h.fc2.weight"]
    with pytest.raises(Refused, match="--drop fc: no tensor"):
        weights.rename(found, [], ["fc"])
    with pytest.raises(Refused, match="--map f=g: no tensor"):
        weights.rename(found, [("f", "g")], [])
