"""Models that are refused, and what the user is told to do; a refusal leaves nothing behind."""

import re

import pytest
import torch

from export.tests import user_models
from export.tests.conftest import DCGAN, IMAGES, VAE, fill, user

REFUSALS = {
    "wrong latent": (
        "Vae",
        ["--method", "decode", "--latent", 5],
        r"fails on inputs of shape \[2, 5\].*check --latent",
    ),
    "no activation": (
        "Logits",
        ["--latent", 4],
        r"outside of the declared range \[0, 1\].*--clamp.*--activation",
    ),
    "size": (
        "Vae",
        ["--method", "decode", "--latent", 4, "--size", "6,6"],
        r"shape \[N, 30\], declared is \[N, 1, 6, 6\]",
    ),
    "a whole VAE": ("Vae", ["--latent", 4], r"with --method; it has encode, decode\n"),
    "tuple": ("Vae", ["--latent", 30], "returns a tuple of 3: choose one with --select"),
    "dropout": ("Dropout", ["--latent", 4], "the same input gives outputs that differ"),
    "batch statistics": ("BatchStatistics", ["--latent", 4], "depends on the batch it is in"),
    "fixed batch": (
        "FixedBatch",
        ["--latent", 4],
        r"fails on inputs of shape .*shape '\[3, 30\]' is invalid.*it must take any batch size",
    ),
    "overflow": (
        "Overflowing",
        ["--latent", 4],
        r"of 64 samples give NaN or infinite outputs, first sample \d",
    ),
    "bytes": ("Bytes", ["--latent", 4], "returns uint8: .*leave out its last step"),
    "detached": ("Detached", ["--latent", 4], "no gradient reaches.*take torch.no_grad"),
    "two inputs": (
        "Conditional",
        ["--latent", 4],
        "must take one tensor; write a class or function around it",
    ),
    "batch last": (
        "Transposed",
        ["--latent", 4],
        r"returns \[30, 2\] for 2 inputs: it must return one row for each",
    ),
    "dropped but used": (
        "Vae",
        ["--method", "decode", "--latent", 4, "--drop", "fc3"],
        "the module uses them: fc3.weight",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_generators_that_are_refused(tmp_path, saved, export, name):
    kind, arguments, message = REFUSALS[name]
    _, weights = saved(getattr(user_models, kind)())
    code, out, errors = export(
        *VAE, "--weights", weights, "--module", user(kind), *arguments, "--out", tmp_path / "g.pt"
    )
    assert code == 1 and not out
    assert errors.startswith("error: ") and re.search(f"(?s){message}", errors), errors
    assert not list(tmp_path.glob("g.*"))


def test_a_whole_vae_in_an_archive_is_told_its_methods(tmp_path, export):
    torch.jit.script(fill(user_models.Vae())).save(tmp_path / "vae.pt")
    code, _, errors = export(*VAE, "--module", tmp_path / "vae.pt", "--latent", 4, "--out", tmp_path / "g.pt")
    assert code == 1 and re.search("with --method; it has .*decode", errors), errors


@pytest.mark.parametrize(
    ("kind", "model", "arguments", "message"),
    [
        (
            "classifier",
            "Classifier",
            ["--classes", 2],
            "the classifier has 3 output(s), declared are --classes 2",
        ),
        ("classifier", "DictHeads", [], "with the keys features, logits: choose one with --select"),
        (
            "classifier",
            "Argmax",
            [],
            "returns int64: it must return floating-point numbers, so leave out its last step",
        ),
        ("classifier", "Classifier", ["--class", 3], "--class 3: the classifier has 3 classes, 0 to 2"),
        ("classifier", "Unpooled", [], "a classifier must return [N, K] or [N], found [64, 4, 3, 3]"),
        ("scorer", "Classifier", [], "a scorer must return one number for each image"),
        ("classifier", "LeNet", [], "needs --resize H,W"),
        ("features", "Brightness", [], "features must be [N, D]"),
    ],
)
def test_labellers_that_are_refused(tmp_path, saved, export, kind, model, arguments, message):
    source = [] if model == "Brightness" else ["--weights", saved(getattr(user_models, model)())[1]]
    code, _, errors = export(
        "--kind", kind, *IMAGES, "--module", user(model), *source, *arguments, "--out", tmp_path / "c.pt"
    )
    assert code == 1 and message in errors and not list(tmp_path.glob("c.*"))


def test_a_native_model_that_is_not_the_users_module(tmp_path, saved, export):
    """The shapes fit, but the user's class scales its output: only running both shows it."""
    source = tmp_path / "scaled.py"
    source.write_text(
        "from export.tests.user_models import Dcgan\n\n\nclass Scaled(Dcgan):\n"
        "    def forward(self, z):\n        return 0.9 * self.main(z)\n"
    )
    _, weights = saved(user_models.Dcgan())
    code, _, errors = export(
        *DCGAN,
        "--weights",
        weights,
        "--module",
        f"{source}:Scaled",
        "--latent-shape",
        "6,1,1",
        "--architecture",
        "dcgan",
        "--out",
        tmp_path / "g.safetensors",
    )
    assert code == 1 and "differs from the original module's by 0." in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latent", 7], "the latent dimension declared is 7, that of the weights 6"),
        (["--channels", 3], "the number of channels declared is 3, that of the weights 1"),
        (["--size", 28], "the size declared is (28, 28), that of the weights (16, 16)"),
        (["--output-range", "0,255"], "ends in sigmoid, range 0,1, or tanh"),
    ],
)
def test_native_declarations_must_agree(tmp_path, saved, export, arguments, message):
    _, weights = saved(user_models.Dcgan())
    code, _, errors = export(
        *DCGAN,
        *arguments,
        "--weights",
        weights,
        "--architecture",
        "dcgan",
        "--out",
        tmp_path / "g.safetensors",
    )
    assert code == 1 and message in errors


def test_weights_are_never_random(tmp_path, export):
    code, _, errors = export(*VAE, "--module", user("Logits"), "--latent", 4, "--out", tmp_path / "g.pt")
    assert code == 1 and "give the trained ones with --weights" in errors
