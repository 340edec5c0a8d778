"""README's way for one's own generator, typed by a new user: a fresh checkout in which `make demo` has run.

The commands are README's, word for word. What `make demo` and `make export-deps` install is there, and no more; the
programs are those built in this checkout.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from export.tests import lean
from export.tests.conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
SECTION = README[README.index("## Your own generator") : README.index("Over several machines")]
COMMANDS, JOB = re.findall(r"```(?:yaml)?\n(.*?)```", SECTION, re.DOTALL)
WAYS = re.findall(r"^\| (.+) \| `(--module .+)` \|$", SECTION, re.MULTILINE)
# For all ways but the first, which runs on the defaults as README's job does.
# It goes on in `evaluate`, with which README's job ends.
BRIEF = "  samples: 500\nsample: {until: {total: 1500}}\nunlearn: {steps: 40}\npool: {latents: 2000}\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer") / "lethe"
    tracked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(tracked, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if name and (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    lean.after_export_deps(folder / ".venv")
    (folder / ".libtorch").symlink_to(next((folder / ".venv").glob("lib/python3*/site-packages/torch")))
    (folder / ".stamps").mkdir()
    for stamp in ("system", "libtorch", "export"):  # in this order: make looks at their times
        (folder / ".stamps" / stamp).touch()
    (folder / "target").mkdir()
    (folder / "target" / "release").symlink_to(CHECKOUT / "target" / "release")
    return folder


def type_in(checkout: Path, commands: str) -> str:
    """Runs the lines in bash, as typed; everything must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def remaining_share(checkout: Path, name: str) -> float:
    """By the result of the job `name`, which must be whole."""
    folder = checkout / "lethe-out" / name
    result = json.loads((folder / "result.json").read_text())
    assert (folder / "before_after.png").stat().st_size > 1000
    assert [path for path in folder.glob("generator*.pt") if path.stat().st_size > 100_000]
    (found,) = [figure for figure in result["figures"] if figure["name"] == "remaining_share"]
    return found["after"]


def test_every_way_is_in_the_table():
    assert [way for _, way in WAYS] == [
        "--module mine/decoder.py:Decoder --weights mine/decoder.pth",
        "--module mine/decoder.py:Decoder --weights mine/whole.pth",
        "--module mine/decoder.py:trained",
        "--module mine/decoder.pt",
    ]
    assert WAYS[0][1] in COMMANDS


def test_the_commands_as_they_stand(checkout):
    printed = type_in(checkout, COMMANDS)
    assert (checkout / "mine" / "no-sevens.yaml").read_text() == JOB
    assert "read        decoder.pth: 6 tensors at model" in printed
    assert remaining_share(checkout, "no-sevens") < 0.5


@pytest.mark.parametrize(("have", "way"), WAYS[1:], ids=[way.replace("/", " ") for _, way in WAYS[1:]])
def test_the_other_ways(checkout, have, way):
    """The same from another file of the same model, in a folder of its own and with a short job."""
    mine = re.sub(r"\W+", "-", way).strip("-").lower()
    exports = COMMANDS.replace(WAYS[0][1], way).split("\n\n")[1].partition("\ntarget/")[0]
    make = f".venv/bin/python examples/own/stand_in.py {mine}\n" + exports.replace("mine/", f"{mine}/")
    type_in(checkout, make)
    job = checkout / mine / "no-sevens.yaml"
    job.write_text(job.read_text() + BRIEF)
    type_in(checkout, f"target/release/lethe run {mine}/no-sevens.yaml --out lethe-out/{mine}")
    assert remaining_share(checkout, mine) < 1
