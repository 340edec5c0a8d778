"""The command, end to end: what it writes, what it refuses, and that a refusal leaves nothing behind."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from export import artifact, native
from export.tests import user_models
from export.tests.conftest import CHECKOUT, DCGAN, IMAGES, VAE, fill, user


def sidecar(path):
    description = json.loads(path.with_name(path.name + ".json").read_text())
    assert description.pop("sha256") == hashlib.sha256(path.read_bytes()).hexdigest()
    return description


def test_a_vae_as_torchscript_and_native(tmp_path, saved, export):
    module, weights = saved(user_models.Vae())
    common = [*VAE, "--weights", weights, "--module", user("Vae"), "--method", "decode", "--latent", 4]
    code, out, _ = export(*common, "--out", tmp_path / "vae.pt", "--source", "mine, MIT")
    assert code == 0 and "left out    fc1, fc21, fc22" in out
    code, out, errors = export(
        *common,
        "--architecture",
        "mlp_decoder",
        "--drop",
        "fc1",
        "--drop",
        "fc21",
        "--drop",
        "fc22",
        "--out",
        tmp_path / "vae.safetensors",
    )
    assert code == 0 and "equal       to the original module within" in out and not errors
    assert sidecar(tmp_path / "vae.pt") == {
        "schema_version": 1,
        "kind": "generator",
        "format": "torchscript",
        "architecture": None,
        "latent": {"shape": [4], "prior": "normal"},
        "output": {"range": [0.0, 1.0], "channels": 1, "height": 5, "width": 6},
        "source": "mine, MIT",
    }
    description = sidecar(tmp_path / "vae.safetensors")
    assert description["architecture"] == {
        "name": "mlp_decoder",
        "latent": 4,
        "hidden": [16],
        "activation": "relu",
        "output": "sigmoid",
        "shape": [1, 5, 6],
    }
    z = torch.randn(5, 4)
    with torch.no_grad():
        scripted = torch.jit.load(tmp_path / "vae.pt")(z)
        ours = native.load(
            description["architecture"], safetensors.torch.load_file(tmp_path / "vae.safetensors")
        )(z)
        assert torch.equal(scripted, module.decode(z))
    assert (ours.flatten(1) - scripted).abs().max() < 1e-6


def test_a_dcgan_with_uniform_latents_of_shape_d11(tmp_path, saved, export):
    _, weights = saved(user_models.Dcgan())
    common = [
        *DCGAN,
        "--weights",
        weights,
        "--module",
        user("Dcgan"),
        "--latent-shape",
        "6,1,1",
        "--prior",
        "uniform:-1,1",
    ]
    assert export(*common, "--out", tmp_path / "g.pt")[0] == 0
    assert export(*common, "--out", tmp_path / "g.safetensors", "--architecture", "dcgan")[0] == 0
    assert sidecar(tmp_path / "g.pt")["latent"] == {"shape": [6, 1, 1], "prior": {"uniform": [-1.0, 1.0]}}
    assert sidecar(tmp_path / "g.safetensors")["latent"] == {"shape": [6], "prior": {"uniform": [-1.0, 1.0]}}
    assert sidecar(tmp_path / "g.safetensors")["output"] == {
        "range": [-1.0, 1.0],
        "channels": 1,
        "height": 16,
        "width": 16,
    }


def test_a_native_architecture_as_torchscript_without_a_class(tmp_path, saved, export):
    module, weights = saved(user_models.Dcgan())
    code, _, errors = export(
        "--kind",
        "generator",
        "--output-range",
        "-1,1",
        "--architecture",
        "dcgan",
        "--weights",
        weights,
        "--out",
        tmp_path / "g.pt",
    )
    assert code == 0 and "there is no module to compare with" in errors
    z = torch.randn(3, 6)
    with torch.no_grad():
        assert (torch.jit.load(tmp_path / "g.pt")(z) - module(z[:, :, None, None])).abs().max() < 1e-5
    assert sidecar(tmp_path / "g.pt")["architecture"] is None


def test_a_traced_generator_takes_any_batch_and_trains(tmp_path, saved, export):
    _, weights = saved(user_models.UncompilableDcgan())
    code, out, _ = export(
        *DCGAN,
        "--weights",
        weights,
        "--module",
        user("UncompilableDcgan"),
        "--latent-shape",
        "6,1,1",
        "--out",
        tmp_path / "g.pt",
    )
    assert code == 0 and "traced, because scripting it failed" in out
    loaded = torch.jit.load(tmp_path / "g.pt")
    loaded(torch.randn(7, 6, 1, 1)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in loaded.parameters())


def test_a_torchscript_archive_is_described_and_wrapped(tmp_path, export):
    torch.jit.script(fill(user_models.Logits())).save(tmp_path / "theirs.pt")
    assert (
        export(
            *VAE,
            "--module",
            tmp_path / "theirs.pt",
            "--latent",
            4,
            "--activation",
            "sigmoid",
            "--out",
            tmp_path / "g.pt",
        )[0]
        == 0
    )


def test_labellers(tmp_path, saved, export):
    _, weights = saved(user_models.TwoHeads())
    common = [
        *IMAGES,
        "--weights",
        weights,
        "--module",
        user("TwoHeads"),
        "--resize",
        "12,12",
        "--normalize",
        "0.5,0.5",
    ]
    assert (
        export("--kind", "classifier", *common, "--select", 1, "--classes", 3, "--out", tmp_path / "c.pt")[0]
        == 0
    )
    assert export("--kind", "features", *common, "--select", 0, "--out", tmp_path / "f.pt")[0] == 0
    assert (
        export("--kind", "scorer", *IMAGES, "--module", user("Brightness"), "--out", tmp_path / "s.pt")[0]
        == 0
    )
    assert sidecar(tmp_path / "c.pt") == {
        "schema_version": 1,
        "kind": "classifier",
        "format": "torchscript",
        "architecture": None,
        "classes": 3,
        "source": "exported from weights.pth; origin and licence not stated",
    }
    assert sidecar(tmp_path / "f.pt")["dimension"] == 4
    assert "classes" not in sidecar(tmp_path / "s.pt") and "dimension" not in sidecar(tmp_path / "s.pt")
    assert not any(p.requires_grad for p in torch.jit.load(tmp_path / "c.pt").parameters())


@pytest.mark.parametrize("name", ["Half", "Double", "GreyRows", "InPlace"])
def test_generators_with_habits_of_their_own(tmp_path, saved, export, name):
    """Other precisions become f32, grey images may lack their channel, a changed input is nobody's."""
    module, weights = saved(getattr(user_models, name)())
    code, out, errors = export(
        *VAE, "--weights", weights, "--module", user(name), "--latent", 4, "--out", tmp_path / "g.pt"
    )
    assert code == 0, errors
    assert ("outputs of float" in out) == (name in ("Half", "Double"))
    z = torch.randn(5, 4)
    with torch.no_grad():
        images, expected = torch.jit.load(tmp_path / "g.pt")(z.clone()), module(z.clone())
    assert images.dtype == torch.float32
    assert torch.equal(images.reshape(5, 30), expected.float().reshape(5, 30))


def test_a_generator_slightly_out_of_range_is_clamped_on_request(tmp_path, saved, export):
    _, weights = saved(user_models.Beyond())
    common = [
        *VAE,
        "--weights",
        weights,
        "--module",
        user("Beyond"),
        "--latent",
        4,
        "--out",
        tmp_path / "g.pt",
    ]
    code, _, errors = export(*common)
    assert code == 1 and re.search(r"of their values:\n  add --clamp if they are meant to be cut off", errors)
    code, out, _ = export(*common, "--clamp")
    assert code == 0 and re.search(r"clamped \(\d+\.\d+% of the values are outside\)", out)
    assert sidecar(tmp_path / "g.pt")["output"]["clamp"] is True
    assert export(*common[:-4], "--latent", 4, "--out", tmp_path / "same.pt", "--clamp")[0] == 0


@pytest.mark.parametrize(("option", "channels", "takes"), [("--grey", 3, 1), ("--colour", 1, 3)])
def test_a_labeller_for_other_images(tmp_path, saved, export, option, channels, takes):
    """A labeller of grey images beside a colour generator, and the reverse, of another size too."""
    module, weights = saved(user_models.Classifier(channels=takes))
    code, out, errors = export(
        "--kind",
        "classifier",
        "--weights",
        weights,
        "--module",
        user("Classifier"),
        "--args",
        json.dumps({"channels": takes}),
        "--channels",
        channels,
        "--size",
        8,
        "--resize",
        "12,12",
        option,
        "--out",
        tmp_path / "c.pt",
    )
    assert code == 0, errors
    x = torch.rand(4, channels, 8, 8)
    large = torch.nn.functional.interpolate(x, size=(12, 12), mode="bilinear")
    weighed = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    expected = (large * weighed).sum(1, keepdim=True) if option == "--grey" else large.repeat(1, 3, 1, 1)
    with torch.no_grad():
        assert (torch.jit.load(tmp_path / "c.pt")(x) - module(expected)).abs().max() < 1e-5


def test_a_labeller_of_a_part_of_the_image(tmp_path, saved, export):
    """What lies outside the part changes nothing; inside, rows are counted from the top and columns from the left."""
    module, weights = saved(user_models.Classifier())
    common = ["--kind", "classifier", "--weights", weights, "--module", user("Classifier"), "--channels", 1]
    code, _, errors = export(*common, "--size", "20,16", "--crop", "9,3,8,10", "--out", tmp_path / "c.pt")
    assert code == 0, errors
    x = torch.rand(4, 1, 20, 16)
    with torch.no_grad():
        assert (torch.jit.load(tmp_path / "c.pt")(x) - module(x[:, :, 9:17, 3:13])).abs().max() < 1e-5


def test_a_function_that_brings_its_own_weights(tmp_path, saved, export):
    module, weights = saved(user_models.Vae())
    source = tmp_path / "trained_vae.py"
    source.write_text(
        "import torch\nfrom export.tests.user_models import Vae\n\n\ndef trained():\n    vae = Vae()\n"
        f"    vae.load_state_dict(torch.load({str(weights)!r}))\n    return vae\n"
    )
    common = [*VAE, "--method", "decode", "--latent", 4, "--out", tmp_path / "g.pt"]
    code, out, _ = export(*common, "--module", f"{source}:trained")
    assert code == 0 and "trained_vae.py:trained brings its own weights" in out
    z = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(torch.jit.load(tmp_path / "g.pt")(z), module.decode(z))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*VAE, "--module", "m.py:A", "--out", "g.pt"], "a generator needs --latent"),
        (
            ["--kind", "classifier", "--module", "m.py:A", "--out", "g.pt"],
            "a classifier needs --channels, --size",
        ),
        (
            [*VAE, "--module", "m.py:A", "--latent", 4, "--out", "g.safetensors"],
            "safetensors holds weights only",
        ),
        (
            [*VAE, "--latent", 4, "--out", "g.pt"],
            "add the class that the weights belong to, --module FILE.py:CLASS",
        ),
        ([*VAE, "--latent", 4, "--module", "m.py:A", "--out", "g.onnx"], "--out must end in .pt"),
        (
            [*VAE, "--latent", 4, "--module", "m.py:A", "--resize", 3, "--out", "g.pt"],
            "--resize: not for a generator",
        ),
        (
            ["--kind", "scorer", *IMAGES, "--classes", 2, "--module", "m.py:A", "--out", "g.pt"],
            "--classes: not for a scorer",
        ),
        (
            ["--kind", "scorer", *IMAGES, "--crop", "1,0,8,8", "--module", "m.py:A", "--out", "g.pt"],
            "--crop goes beyond images of 8x8",
        ),
        (
            ["--kind", "scorer", *IMAGES, "--grey", "--module", "m.py:A", "--out", "g.pt"],
            "--grey makes grey images of",
        ),
        (
            [
                "--kind",
                "scorer",
                "--channels",
                3,
                "--size",
                8,
                "--colour",
                "--module",
                "m.py:A",
                "--out",
                "g.pt",
            ],
            "--colour makes colour images of",
        ),
        (
            ["--kind", "scorer", *IMAGES, "--job", "j.yaml", "--module", "m.py:A", "--out", "g.pt"],
            "a scorer needs --feature, --positive, to add it to a job",
        ),
        (
            [*VAE, "--weights", "w.pth", "--architecture", "dcgan", "--clamp", "--out", "g.pt"],
            "--clamp: a native architecture",
        ),
        (
            [*VAE, "--latent", 4, "--module", "m.py:A", "--prior", "uniform:1,0", "--out", "g.pt"],
            "argument --prior: invalid",
        ),
    ],
)
def test_usage(export, arguments, message):
    code, _, errors = export(*arguments)
    assert code == 2 and message in errors


def command(*arguments, **settings):
    program = [sys.executable, str(CHECKOUT / "tools" / "export"), *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=300, **settings)


def test_a_full_disk_leaves_the_old_pair_whole(tmp_path, saved):
    """The file size limit stands in for the disk: the model does not fit, and the pair from before stays."""
    _, weights = saved(user_models.Vae(pixels=30, hidden=2000))
    (tmp_path / "old").mkdir()
    for name in ("g.pt", "g.pt.json"):
        (tmp_path / "old" / name).write_text("before")
    done = command(
        "--force",
        *VAE,
        "--weights",
        weights,
        "--module",
        user("Vae"),
        "--args",
        '{"hidden": 2000}',
        "--method",
        "decode",
        "--latent",
        4,
        "--out",
        tmp_path / "old" / "g.pt",
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert done.returncode == 1 and "cannot write" in done.stderr and "nothing was written" in done.stderr
    assert sorted(os.listdir(tmp_path / "old")) == ["g.pt", "g.pt.json"]
    assert {(tmp_path / "old" / name).read_text() for name in os.listdir(tmp_path / "old")} == {"before"}


def test_a_folder_that_cannot_be_written(tmp_path, saved, export):
    _, weights = saved(user_models.Vae())
    for out in (tmp_path / "absent" / "g.pt", weights / "g.pt"):
        code, _, errors = export(
            *VAE,
            "--weights",
            weights,
            "--module",
            user("Vae"),
            "--method",
            "decode",
            "--latent",
            4,
            "--out",
            out,
        )
        assert code == 1 and f"cannot write {out}: there is no folder {out.parent}, make it first" in errors


@pytest.mark.parametrize("start", [["tools/export"], ["-m", "tools.export"]])
def test_ways_of_starting(start):
    done = subprocess.run(
        [sys.executable, *start, "--help"], capture_output=True, text=True, timeout=300, cwd=CHECKOUT
    )
    assert done.returncode == 0 and "usage: tools/export" in done.stdout, done.stderr


def test_only_what_was_exported_is_replaced(tmp_path, saved, export):
    out, beside = tmp_path / "made.pt", tmp_path / "made.pt.json"
    weights = saved(user_models.Logits(), "g.pth")[1]
    common = [*VAE, "--weights", weights, "--module", user("Logits"), "--activation", "sigmoid", "--latent", 4]
    for theirs in (out, beside):
        theirs.write_text("precious")
        code, _, errors = export(*common, "--out", out)
        assert code == 1 and f"{theirs} would be replaced" in errors and "--force" in errors
        assert theirs.read_text() == "precious" and len(list(tmp_path.glob("made*"))) == 1
        theirs.unlink()
    assert export(*common, "--out", out)[0] == 0
    model = out.read_bytes()
    assert export(*common, "--out", out, "--source", "again")[0] == 0 and sidecar(out)["source"] == "again"
    out.write_bytes(model + b"changed")
    assert export(*common, "--out", out)[0] == 1 and out.read_bytes().endswith(b"changed")
    assert export(*common, "--out", out, "--force")[0] == 0 and not out.read_bytes().endswith(b"changed")
    out.unlink()
    out.symlink_to(tmp_path / "mine.pt")
    (tmp_path / "mine.pt").write_bytes(model)
    assert export(*common, "--out", out)[0] == 1 and out.is_symlink()


def test_what_appears_in_the_meantime_stays(tmp_path):
    there = tmp_path / "g.pt"
    there.write_text("precious")
    with pytest.raises(FileExistsError):
        artifact.write_atomically({there: b"new"}, replace=False)
    assert there.read_text() == "precious" and list(tmp_path.iterdir()) == [there]
