"""The exporter in a checkout that has run `make demo` and nothing else, and after `make export-deps`."""

import shutil
import subprocess
import sys

import pytest

from export.tests import lean
from export.tests.conftest import CHECKOUT

ARGUMENTS = [
    "--kind", "scorer", "--module", "brightness.py:Brightness", "--channels", "1", "--size", "8", "--out", "s.pt",
]  # fmt: skip
BRIGHTNESS = """import torch


class Brightness(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2, 3))
"""


def run(python, checkout, *arguments):
    """From the checkout's root, as its reader would."""
    command = [str(python), "tools/export", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300, env={})


def a_checkout(folder):
    shutil.copytree(CHECKOUT / "tools" / "export", folder / "tools" / "export")
    (folder / "brightness.py").write_text(BRIGHTNESS)
    return folder


@pytest.fixture(scope="module")
def after_demo(tmp_path_factory):
    checkout = a_checkout(tmp_path_factory.mktemp("demo"))
    lean.after_demo(checkout / ".venv")
    return checkout


def test_after_make_demo_the_one_command_is_named(after_demo):
    done = run(".venv/bin/python", after_demo, *ARGUMENTS)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: this Python ") and "cannot import torch: " in done.stderr
    assert f"    make -C {after_demo} export-deps\n" in done.stderr
    assert not (after_demo / "s.pt").exists()


def test_the_wrong_python_is_sent_to_the_right_one(after_demo, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True)
    done = run(tmp_path / "other" / "bin" / "python", after_demo, *ARGUMENTS)
    assert done.returncode == 1 and f"with the checkout's own: {after_demo}/.venv/bin/python" in done.stderr


def test_help_and_usage_need_nothing(after_demo):
    done = run(".venv/bin/python", after_demo, "--help")
    assert done.returncode == 0 and "--weights" in done.stdout
    done = run(".venv/bin/python", after_demo, *ARGUMENTS, "--clamp")
    assert done.returncode == 2 and "--clamp: not for a scorer" in done.stderr


def test_what_export_deps_installs_is_enough(tmp_path):
    checkout = a_checkout(tmp_path)
    lean.after_export_deps(checkout / ".venv")
    done = run(".venv/bin/python", checkout, *ARGUMENTS)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert (checkout / "s.pt").exists()
