"""Weights in every shape that users bring, and what is refused."""

import shlex
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from export import load
from export.refusal import Refused
from export.tests import user_models
from export.tests.conftest import fill, user


def equal(found, module):
    state = module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("legacy", [True, False])
def test_state_dict(tmp_path, legacy):
    module = fill(user_models.Dcgan())
    torch.save(module.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    equal(load.weights(tmp_path / "w.pth"), module)


def test_inside_a_checkpoint_of_a_data_parallel_module(tmp_path):
    module = fill(user_models.Dcgan())
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 3, "netG": state}, tmp_path / "w.pth")
    equal(load.weights(tmp_path / "w.pth"), module)


def test_a_checkpoint_of_two_networks_wants_a_choice(tmp_path):
    module, other = fill(user_models.Dcgan(), 1), fill(user_models.Vae(), 2)
    torch.save({"G": module.state_dict(), "D": other.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(Refused, match="--entry, one of: G, D"):
        load.weights(tmp_path / "w.pth")
    with pytest.raises(Refused, match="no state dict called 'H'; it has: G, D"):
        load.weights(tmp_path / "w.pth", "H")
    equal(load.weights(tmp_path / "w.pth", "G"), module)


def test_half_precision_becomes_single(tmp_path):
    torch.save({"a.weight": torch.tensor([[0.5]], dtype=torch.bfloat16)}, tmp_path / "w.pth")
    assert load.weights(tmp_path / "w.pth")["a.weight"].dtype == torch.float32


@pytest.mark.parametrize("legacy", [True, False])
def test_the_command_for_a_pickled_module_works(tmp_path, legacy):
    """Runs the very command of the message, then loads what it wrote."""
    module = fill(user_models.Vae())
    path = tmp_path / "it's whole.pt"
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(Refused, match="never loads those") as refused:
        load.weights(path)
    command = next(line for line in str(refused.value).splitlines() if line.strip().startswith("python -c"))
    program = shlex.split(command)
    folder = load.__file__.rpartition("/export/")[0]
    subprocess.run([sys.executable, *program[1:]], check=True, env={"PYTHONPATH": folder}, timeout=120)
    equal(load.weights(tmp_path / "it's whole.state.pth"), module)


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"a": Bomb()}, tmp_path / "w.pth")
    for read in (
        lambda: load.weights(tmp_path / "w.pth"),
        lambda: load.module(str(tmp_path / "w.pth"), None),
    ):
        with pytest.raises(Refused, match="weights_only=False"):
            read()
    assert not (tmp_path / "ran").exists()


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
        load.weights(path)
    assert "pickle" not in str(refused.value).partition("(")[0]


def test_not_a_model_at_all(tmp_path):
    (tmp_path / "w.pth").write_text("These are my weights, honestly.\n" * 10)
    with pytest.raises(Refused, match="not a PyTorch file"):
        load.weights(tmp_path / "w.pth")
    torch.save(torch.zeros(3), tmp_path / "w.pth")
    with pytest.raises(Refused, match="holds a Tensor, not a state dict"):
        load.weights(tmp_path / "w.pth")
    with pytest.raises(Refused, match="there is no weights file"):
        load.weights(tmp_path / "absent.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_numbers_are_named(tmp_path, value):
    state = fill(user_models.Vae()).state_dict()
    state["fc3.bias"][2] = value
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(Refused, match="fc3.bias \\[16\\]") as refused:
        load.weights(tmp_path / "w.pth")
    assert "fc4" not in str(refused.value)


def test_torchscript_is_a_module_not_weights(tmp_path):
    torch.jit.script(fill(user_models.Logits())).save(tmp_path / "m.pt")
    with pytest.raises(Refused, match="give it as --module"):
        load.weights(tmp_path / "m.pt")
    assert isinstance(load.module(str(tmp_path / "m.pt"), None), torch.jit.ScriptModule)


def test_weights_that_do_not_fit():
    module, weights = user_models.Vae(), fill(user_models.Vae(hidden=17)).state_dict()
    weights["extra.bias"] = torch.zeros(2)
    del weights["fc4.bias"]
    with pytest.raises(Refused) as refused:
        load.fill(module, weights, [])
    text = str(refused.value)
    assert "tensors that the weights lack:\n    fc4.bias [30]" in text
    assert "tensors that the module lacks:\n    extra.bias [2]" in text
    assert "fc3.weight: the module has [16, 4], the weights [17, 4]" in text


def test_renaming_takes_whole_parts_of_names():
    weights = {name: torch.zeros(1) for name in ("fc2.weight", "fc21.weight", "g.fc2.weight")}
    assert list(load.rename(weights, [("g", "h")], ["fc2"])) == ["fc21.weight", "h.fc2.weight"]
    with pytest.raises(Refused, match="--drop fc: no tensor"):
        load.rename(weights, [], ["fc"])
    with pytest.raises(Refused, match="--map f=g: no tensor"):
        load.rename(weights, [("f", "g")], [])


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (user("Absent"), None, "defines no Absent"),
        (user("Vae"), '{"size": 3}', "TypeError.*--args"),
        (user("Vae"), "{3", "--args is not JSON"),
        (user("not_a_module"), None, "makes a int, not a torch.nn.Module"),
        ("nowhere.py:Net", None, "no source file nowhere.py"),
        ("nowhere.pt", None, "no such file"),
    ],
)
def test_modules_that_cannot_be_built(spec, arguments, message):
    with pytest.raises(Refused, match=message):
        load.module(spec, arguments)


def test_arguments_by_name_and_by_position():
    assert load.module(user("Vae"), '{"latent": 7}').fc3.in_features == 7
    assert load.module(user("Vae"), "[20, 9]").fc3.out_features == 9
    assert load.module(user("unit_vae"), None).fc3.in_features == 4
