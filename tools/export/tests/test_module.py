"""Modules from a Python file and from an archive, and what is refused."""

import pytest
import torch

from export import module as source
from export.refusal import Refused
from export.tests import user_models
from export.tests.conftest import SOURCE, fill, user


def test_weights_that_do_not_fit():
    module, weights = user_models.Vae(), fill(user_models.Vae(hidden=17)).state_dict()
    weights["extra.bias"] = torch.zeros(2)
    del weights["fc4.bias"]
    with pytest.raises(Refused) as refused:
        source.fill(module, weights, [])
    text = str(refused.value)
    assert "tensors that the weights lack:\n    fc4.bias [30]" in text
    assert "tensors that the module lacks:\n    extra.bias [2]" in text
    assert "fc3.weight: the module has [16, 4], the weights [17, 4]" in text


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (user("Absent"), None, "defines no Absent; its modules: .*Dcgan.*Vae"),
        (str(SOURCE), None, "names no class: add it as --module .*user_models.py:CLASS"),
        (user("Vae"), '{"size": 3}', "TypeError.*--args.*a function without arguments"),
        (user("Vae"), "{3", "--args is not JSON.*write it as"),
        (user("not_a_module"), None, "makes a int, not a torch.nn.Module"),
        ("nowhere.py:Net", None, "no source file nowhere.py"),
        ("nowhere.pt", None, "no such file"),
    ],
)
def test_modules_that_cannot_be_built(spec, arguments, message):
    with pytest.raises(Refused, match=f"(?s){message}"):
        source.load(spec, arguments)


def test_arguments_by_name_and_by_position():
    assert source.load(user("Vae"), '{"latent": 7}').fc3.in_features == 7
    assert source.load(user("Vae"), "[20, 9]").fc3.out_features == 9
    assert source.load(user("unit_vae"), None).fc3.in_features == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_package\n", "cannot be imported.*bin/pip install no_such_package"),
        ("import sys\nsys.exit(3)\n", "importing runs it.*a file of its own"),
        ("from .layers import Block\n", "part of a package.*from PACKAGE.FILE import CLASS"),
        ("raise RuntimeError('no data set here')\n", "no data set here.*a file of its own"),
    ],
)
def test_files_that_cannot_be_imported(tmp_path, text, message):
    (tmp_path / "broken_file.py").write_text(text)
    with pytest.raises(Refused, match=f"(?s){message}"):
        source.load(f"{tmp_path}/broken_file.py:Net", None)


class Methods(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(4, 6)

    @torch.jit.export
    def decode(self, z):
        return torch.sigmoid(self.fc(z))


class Parts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = torch.nn.Linear(4, 6)

    def forward(self, x):
        return self.decoder(x[:, :4])


class Silent(torch.nn.Module):
    """Parts, and nothing that says how they go together."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)


class Bare(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4, 6))


def archive(tmp_path, module):
    torch.jit.script(fill(module)).save(tmp_path / "m.pt")
    return source.load(str(tmp_path / "m.pt"), None)


def test_an_archive_without_forward(tmp_path):
    """Its methods and parts are named; one of them can be chosen; without any, the way on is the one that works."""
    found = archive(tmp_path, Methods())
    with pytest.raises(Refused, match="has no method `forward`; it has decode: choose with --method$"):
        source.use_method(found, None, "m.pt")
    with pytest.raises(Refused, match="--method encode: m.pt has no such method or part; it has decode: "):
        source.use_method(found, "encode", "m.pt")
    z = torch.randn(3, 4)
    assert torch.equal(source.use_method(found, "decode", "m.pt")(z), found.decode(z))
    silent = archive(tmp_path, Silent())
    with pytest.raises(Refused, match="it has encoder, decoder: choose with --method, or give it as --weights, with"):
        source.use_method(silent, None, "m.pt")
    assert torch.equal(source.use_method(silent, "decoder", "m.pt")(z), silent.decoder(z))
    with pytest.raises(Refused, match="weights without code; give it as --weights, with its class"):
        source.use_method(archive(tmp_path, Bare()), None, "m.pt")


def test_a_class_without_forward():
    found = fill(Methods())
    with pytest.raises(Refused, match="m.py:Methods has no method `forward`; it has decode: choose with --method$"):
        source.use_method(found, None, "m.py:Methods")
    z = torch.randn(3, 4)
    assert torch.equal(source.use_method(found, "decode", "m.py:Methods")(z), found.decode(z))
    with pytest.raises(Refused, match="it has `forward` alone: leave --method out"):
        source.use_method(user_models.Brightness(), "decode", "m.py:Brightness")
    late = Bare()
    late.forward = torch.sigmoid
    assert source.use_method(late, None, "m.py:late") is late


def test_a_part_instead_of_a_method(tmp_path):
    """Many VAEs have a decoder, not a method: its name will do, in a class and in an archive."""
    vae = fill(torch.nn.Sequential())
    vae.encoder, vae.decoder = fill(torch.nn.Linear(6, 4)), fill(torch.nn.Linear(4, 6))
    assert source.use_method(vae, "decoder", "m.py:Vae") is vae.decoder
    z = torch.randn(3, 4)
    held = torch.jit.script(Parts())
    assert torch.equal(source.use_method(held, "decoder", "m.pt")(z), held.decoder(z))
    with pytest.raises(Refused, match="has no such method or part; it has encoder, decoder: "):
        source.use_method(vae, "paint", "m.py:Vae")
    vae.decoder = torch.nn.Sequential(vae.decoder, torch.nn.Sigmoid())
    with pytest.raises(Refused, match="it has decoder: "):
        source.use_method(vae, "paint", "m.py:Vae")


def test_own_weights_are_told_from_random_ones(tmp_path):
    torch.save(fill(user_models.Logits()).state_dict(), tmp_path / "w.pth")
    (tmp_path / "loaded.py").write_text(
        "import torch\nfrom export.tests.user_models import Logits\n\n\ndef trained():\n    net = Logits()\n"
        f"    net.load_state_dict(torch.load({str(tmp_path / 'w.pth')!r}))\n    return net\n"
    )
    assert source.has_own_weights(f"{tmp_path}/loaded.py:trained", None)
    assert not source.has_own_weights(user("Logits"), None)
