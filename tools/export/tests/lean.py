"""A Python with only some of this one's packages: what a checkout has after `make demo`, or `make export-deps`.

Its packages are links to this Python's, chosen by the lists that the Makefile installs, so it costs seconds and no
network; what is on no list cannot be imported there.
"""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
SETUP = CHECKOUT / "tools" / "setup"

# The lists that pip gets with --no-deps, and the one that it gets without.
DEMO = ["libtorch-cpu.in", "nccl-headers.in"]
EXPORT_ALONE, EXPORT = "torch-python.in", "export.in"


def after_demo(folder: Path) -> Path:
    """Makes a virtual environment `folder` as `make demo` leaves one without a GPU; returns its python."""
    return _make(folder, _listed(*DEMO))


def after_export_deps(folder: Path) -> Path:
    """The same after `make export-deps`."""
    return _make(folder, _listed(*DEMO, EXPORT_ALONE) | _with_dependencies(_listed(EXPORT)))


def _listed(*files: str) -> set[str]:
    lines = [line for file in files for line in (SETUP / file).read_text().splitlines()]
    return {_name(line) for line in lines if line and not line.startswith("#")}


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group()


def _with_dependencies(names: set[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = metadata.distribution(name).requires or []
            waiting += [_name(line) for line in needed if ";" not in line]
    return found


def _make(folder: Path, packages: set[str]) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in sorted(packages):
        distribution = metadata.distribution(package)
        for file in distribution.files:
            if file.parts[0] != ".." and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                (site / file).symlink_to(distribution.locate_file(file).resolve())
    return folder / "bin" / "python"
