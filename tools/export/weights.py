"""Reads the weights that the user brings, as a state dict, and never runs anything that their file names.

Read are: state dicts in both formats of `torch.save`, bare or inside a checkpoint; pickled modules; the weights of a
TorchScript archive; safetensors.
"""

import json
import os
import pickle
import re
import shlex
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from . import inert, recognise
from .refusal import Refused, gist, listing

# Names that wrappers put before every tensor's own.
WRAPPERS = ("module.", "_orig_mod.")  # DataParallel; torch.compile


@dataclass
class Weights:
    """Tensors by name, on the CPU, floats as f32, all finite; `what` says where in the file they were."""

    tensors: dict[str, torch.Tensor]
    what: str


def read(path: Path, entry: str | None = None) -> Weights:
    """The state dict in a file. `entry` names it inside a checkpoint that holds several. Raises `Refused`."""
    if path.is_dir():
        raise Refused(f"{path} is a folder: name the weights file in it")
    if not path.is_file():
        raise Refused(f"there is no weights file {path}")
    if not os.access(path, os.R_OK):
        raise Refused(f"{path} may not be read by this user: change its permissions or copy it")
    if path.suffix == ".safetensors" or recognise.is_safetensors(path):
        found = Weights(_read_safetensors(path), "tensors")
    elif recognise.is_torchscript(path):
        found = Weights(_read_archive(path), "tensors of a TorchScript archive")
    else:
        found = _choose(path, _read_torch(path), entry)
    tensors = _unwrap(found.tensors)
    tensors = {
        name: t.detach().float() if t.is_floating_point() else t.detach() for name, t in tensors.items()
    }
    damaged = {name: t for name, t in tensors.items() if not torch.isfinite(t).all()}
    if damaged:
        raise Refused(
            f"{path} holds NaN or infinite weights in:\n{listing(damaged)}\n"
            "  use a checkpoint from before the training diverged"
        )
    return Weights(tensors, f"{len(tensors)} {found.what}")


def _unwrap(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for prefix in WRAPPERS * 2:  # either may stand in the other
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        found = safetensors.torch.load_file(path)
    except SafetensorError as error:
        what = recognise.stranger(path) or f"truncated or damaged ({error}): copy it again from its source"
        raise Refused(f"{path} is {what}") from error
    # The file sorts its tensors its own way: bring numbered layers back into their order (main.2 before main.10).
    return {name: found[name] for name in sorted(found, key=_natural)}


def _natural(name: str) -> list[tuple[int, int, str]]:
    runs = re.findall(r"\d+|\D+", name)
    return [(0, int(run), "") if run.isdigit() else (1, 0, run) for run in runs]


def _read_archive(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except RuntimeError as error:
        raise Refused(f"{path} cannot be read as a TorchScript archive ({gist(error)})") from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return inert.read(path)
    except Exception as error:  # damaged bytes make the reader raise whatever it stumbles over
        raise Refused(f"{path} {_unreadable(path, error)}") from error


def _unreadable(path: Path, error: Exception) -> str:
    what = recognise.stranger(path)
    if what:
        return f"is {what}"
    refused = isinstance(error, pickle.UnpicklingError)
    protocol = _protocol(path)
    if refused and protocol > 2:
        return (
            f"was saved with pickle_protocol={protocol}, which PyTorch's safe reader does not take: save it again with "
            "torch.save(module.state_dict(), 'weights.pth'), without that argument"
        )
    if refused and inert.names(path) and re.search("persistent_load|is blocked|Can only|reduce", str(error)):
        return _pickled(path)
    cause = re.search(r"WeightsUnpickler error: (.+)", str(error))
    cause = cause.group(1) if cause else gist(error)
    return f"is truncated, damaged or not a PyTorch file ({cause}); copy it again from its source"


def _protocol(path: Path) -> int:
    """Of the pickle in the file, 0 when it does not begin as one."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            start = next(archive.read(name)[:2] for name in archive.namelist() if name.endswith("data.pkl"))
    else:
        with path.open("rb") as file:
            start = file.read(2)
    return start[1] if start[:1] == b"\x80" else 0


def _pickled(path: Path) -> str:
    """For what even the inert reader cannot take apart: whole modules of PyTorch before 1.6, containers of its own."""
    target = path.with_suffix(".state.pth")
    lost = sorted(
        name.removeprefix("__main__.") for name in inert.names(path) if name.startswith("__main__.")
    )
    own = f"from FILE import {', '.join(lost)}; " if lost else ""
    code = (
        f'{own}import torch; o = torch.load({json.dumps(str(path))}, map_location="cpu", weights_only=False); '
        f'torch.save(o.state_dict() if hasattr(o, "state_dict") else o, {json.dumps(str(target))})'
    )
    where = "in the environment that made it"
    if lost:
        where += f", with the name of the file that defines {', '.join(lost)} for FILE"
    return (
        "holds pickled Python objects that cannot be taken apart safely, and Lethe never loads those: that would run "
        f"code that their author chose.\n  If you trust where it comes from, save its tensors alone, {where}:\n\n"
        f"    python -c {shlex.quote(code)}\n\n"
        f"  and run this command again with --weights {target}"
    )


def _choose(path: Path, content: object, entry: str | None) -> Weights:
    """The one state dict or pickled module in `content`, or the one called `entry`."""
    found = _candidates(content)
    if entry is not None:
        if entry not in found:
            raise Refused(f"{path} has no state dict called {entry!r}; it has: {_names(found)}")
        return found[entry]
    if "" in found:
        return found[""]
    if not found:
        raise Refused(
            f"{path} holds no tensors by name, but {_contents(content)}: save `module.state_dict()` with torch.save"
        )
    if len(found) > 1:
        raise Refused(
            f"{path} is a checkpoint of several things: choose the state dict with --entry, one of: {_names(found)}"
        )
    return next(iter(found.values()))


def _candidates(content: object, place: str = "") -> dict[str, Weights]:
    """Every state dict and pickled module in a checkpoint, by its keys joined with points; "" is all of it."""
    at = f" at {place}" if place else ""
    tensors = inert.module_tensors(content)
    if tensors is not None:
        return {place: Weights(tensors, f"tensors of a pickled {content.title}{at} (its code was not run)")}
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        return {}
    own = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    others = {name: value for name, value in content.items() if name not in own}
    deeper: dict[str, Weights] = {}
    for name, value in others.items():
        deeper |= _candidates(value, f"{place}.{name}" if place else name)
    if own and not deeper:
        aside = f", without {', '.join(others)}" if others else ""
        deeper[place] = Weights(own, f"tensors{at}{aside}")
    return deeper


def _names(found: dict) -> str:
    return ", ".join(found) or "none"


def _contents(content: object) -> str:
    if isinstance(content, dict):
        entries = [f"{name} ({_kind(value)})" for name, value in list(content.items())[:8]]
        return (
            f"a dict of {', '.join(entries)}{', ...' if len(content) > 8 else ''}"
            if entries
            else "an empty dict"
        )
    return f"a {_kind(content)}"


def _kind(value: object) -> str:
    if not isinstance(value, inert.Inert):
        return type(value).__name__
    return "NumPy array" if value.title.endswith("multiarray._reconstruct") else value.title


def rename(
    found: dict[str, torch.Tensor], maps: list[tuple[str, str]], drops: list[str]
) -> dict[str, torch.Tensor]:
    """Applies `--drop PREFIX` and then `--map OLD=NEW`, each to whole names or whole leading parts of names."""
    for prefix in drops:
        if not any(_under(name, prefix) for name in found):
            raise Refused(f"--drop {prefix}: no tensor has this name or prefix; there are:\n{listing(found)}")
    kept = {name: t for name, t in found.items() if not under_any(name, drops)}
    for old, new in maps:
        if not any(_under(name, old) for name in kept):
            raise Refused(
                f"--map {old}={new}: no tensor has this name or prefix; there are:\n{listing(kept)}"
            )
        kept = {
            new + name[len(old) :] if _under(name, old) else name: tensor for name, tensor in kept.items()
        }
    return kept


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def under_any(name: str, prefixes: list[str]) -> bool:
    return any(_under(name, prefix) for prefix in prefixes)
