"""Reads what `torch.save` wrote without running anything that the file names.

PyTorch's restricted reader makes tensors and plain containers and stops at any other class or function. Here each of
those is put in as an `Inert` of its own: an object that keeps its name and its state and does nothing. So a whole
pickled module gives up its tensors, and a checkpoint may hold an optimiser, arguments or numpy numbers beside them,
whatever class they are of, without their code being there or being run.
"""

import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import BinaryIO

import torch

# The old format is four pickles before the numbers: a mark, a version, facts of the machine, the object.
OLD_FORMAT_PICKLES = 4


class Inert:
    """Stands where the file names a class or a function; `title` is that name."""

    title = ""

    def __new__(cls, *arguments, **named):
        return super().__new__(cls)

    def __init__(self, *arguments, **named):
        self.arguments, self.state = arguments, {}

    def __setstate__(self, state):
        self.state = state


def read(path: Path) -> object:
    """The object in the file, its tensors on the CPU. Raises what PyTorch's restricted reader raises."""
    # A class for each name: the reader asks whether an object's own class is among those it was given.
    inert = [(type("Inert", (Inert,), {"title": name}), name) for name in sorted(names(path))]
    with torch.serialization.safe_globals(inert):
        return torch.load(path, map_location="cpu", weights_only=True)


def module_tensors(found: object) -> dict[str, torch.Tensor] | None:
    """The state dict of a pickled module, None for anything else."""
    if not isinstance(found, Inert) or not isinstance(found.state, dict) or "_modules" not in found.state:
        return None
    tensors: dict[str, torch.Tensor] = {}
    _collect(found, "", tensors)
    return tensors


def _collect(module: Inert, prefix: str, tensors: dict[str, torch.Tensor]) -> None:
    state = module.state
    passing = state.get("_non_persistent_buffers_set") or ()
    for part in ("_parameters", "_buffers"):
        for name, tensor in state.get(part, {}).items():
            if isinstance(tensor, torch.Tensor) and name not in passing:
                tensors[prefix + name] = tensor
    for name, child in state["_modules"].items():
        if isinstance(child, Inert) and "_modules" in child.state:
            _collect(child, f"{prefix}{name}.", tensors)


def names(path: Path) -> set[str]:
    """Every class and function that the file names, as the reader will spell them."""
    found: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                if entry.endswith("data.pkl"):
                    _scan(archive.open(entry), found)
        return found
    with path.open("rb") as file:
        for _ in range(OLD_FORMAT_PICKLES):
            _scan(file, found)
    return found


def _scan(pickle: BinaryIO, found: set[str]) -> None:
    try:
        for operation, argument, _ in pickletools.genops(pickle):
            if operation.name == "GLOBAL":
                module, name = argument.split(" ", 1)
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                found.add(f"{module}.{name}")
    except (ValueError, UnicodeDecodeError):  # damaged: the reader says so, better
        return
