"""Reads what the user brings: weights (never a pickled object) and the class they belong to.

Weights are read with `torch.load(weights_only=True)` or as safetensors. A file that needs more than that is refused
with the command that converts it where its owner trusts it. The user's class is imported from its source file, or the
module is a TorchScript archive.
"""

import importlib.util
import json
import pickle
import re
import shlex
import sys
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from .refusal import Refused, gist, listing

CONVERT = (
    'import torch; o = torch.load({source}, map_location="cpu", weights_only=False); '
    'o = o.state_dict() if hasattr(o, "state_dict") else o.get("state_dict", o); '
    "torch.save({{k: v for k, v in o.items() if isinstance(v, torch.Tensor)}}, {target})"
)


def weights(path: Path, entry: str | None = None) -> dict[str, torch.Tensor]:
    """The state dict in a file, on the CPU, floats as f32, all finite, without a `module.` prefix on every name.

    `entry` names the state dict inside a checkpoint that holds several things. Raises `Refused`.
    """
    if not path.is_file():
        raise Refused(f"there is no weights file {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    found = _state_dict(path, content, entry)
    if found and all(name.startswith("module.") for name in found):  # saved from DataParallel
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    found = {name: t.detach().float() if t.is_floating_point() else t.detach() for name, t in found.items()}
    damaged = {name: t for name, t in found.items() if not torch.isfinite(t).all()}
    if damaged:
        raise Refused(
            f"{path} holds NaN or infinite weights in:\n{listing(damaged)}\n"
            "  use a checkpoint from before the training diverged"
        )
    return found


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        read = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise Refused(f"{path} is truncated or damaged ({error}); copy it again from its source") from error
    # The file sorts its tensors its own way: bring numbered layers back into their order (main.2 before main.10).
    return {name: read[name] for name in sorted(read, key=_natural)}


def _natural(name: str) -> list[tuple[int, int, str]]:
    runs = re.findall(r"\d+|\D+", name)
    return [(0, int(run), "") if run.isdigit() else (1, 0, run) for run in runs]


def _read_torch(path: Path) -> object:
    if is_torchscript(path):
        raise Refused(
            f"{path} is a TorchScript archive, not a state dict: give it as --module {path}, without --weights"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise whatever it stumbles over
        foreign = isinstance(error, pickle.UnpicklingError) and re.search(
            r"Unsupported (global|class)|allowed global", str(error)
        )
        raise Refused(_pickled(path) if foreign else _damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is truncated, damaged or not a PyTorch file ({gist(error)}); copy it again from its source"
    )


def _pickled(path: Path) -> str:
    target = path.with_suffix(".state.pth")
    code = CONVERT.format(source=json.dumps(str(path)), target=json.dumps(str(target)))
    return (
        f"{path} holds pickled Python objects, and Lethe never loads those: reading a pickle runs code that its author "
        "chose.\n  If you trust where it comes from, save its tensors alone, in the environment that made it:\n\n"
        f"    python -c {shlex.quote(code)}\n\n"
        f"  and run this command again with --weights {target} and --module FILE.py:CLASS"
    )


def _state_dict(path: Path, content: object, entry: str | None) -> dict[str, torch.Tensor]:
    if isinstance(content, nn.Module) or not isinstance(content, dict):
        raise Refused(
            f"{path} holds a {type(content).__name__}, not a state dict: save `module.state_dict()`"
        )
    nested = {key: value for key, value in content.items() if _is_state_dict(value)}
    if entry is None and not _is_state_dict(content) and len(nested) == 1:
        entry = next(iter(nested))
    if entry is not None:
        if entry not in nested:
            raise Refused(f"{path} has no state dict called {entry!r}; it has: {_names(nested)}")
        return nested[entry]
    if not _is_state_dict(content):
        raise Refused(
            f"{path} is a checkpoint of several things: choose the state dict with --entry, one of: "
            f"{_names(nested)}"
        )
    return content


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items())
    )


def _names(nested: dict) -> str:
    return ", ".join(map(str, nested)) or "none"


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


def is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def module(spec: str, arguments: str | None) -> nn.Module:
    """The module of `FILE.py:NAME` (a class, or a function that returns a module) or of a TorchScript archive."""
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py"):
        return _archive(Path(spec))
    path = Path(file).resolve()
    if not path.is_file():
        raise Refused(f"there is no source file {file}")
    try:
        positional, named = _arguments(arguments)
        built = _attribute(path, name)(*positional, **named)
    except Refused:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise Refused(
            f"{spec} cannot be built ({gist(error)}); its constructor's arguments are given with "
            "--args, as a JSON object or list"
        ) from error
    if not isinstance(built, nn.Module):
        raise Refused(f"{spec} makes a {type(built).__name__}, not a torch.nn.Module")
    return built.float()


def _archive(path: Path) -> torch.jit.ScriptModule:
    if not path.is_file():
        raise Refused(
            f"--module {path}: wanted FILE.py:CLASS or a TorchScript archive, and there is no such file"
        )
    if not is_torchscript(path):
        _read_torch(path)  # refuses a pickled module with the command that converts it
        raise Refused(f"{path} is no TorchScript archive: give it as --weights, with --module FILE.py:CLASS")
    try:
        return torch.jit.load(path, map_location="cpu").float()
    except RuntimeError as error:
        raise Refused(f"{path} cannot be read as a TorchScript archive ({gist(error)})") from error


def _attribute(path: Path, name: str):
    sys.path.insert(0, str(path.parent))  # so that the file finds its neighbours
    title = f"user_{path.stem}" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(title, path)
    source = importlib.util.module_from_spec(spec)
    sys.modules[title] = source  # torch.jit looks the class's module up by name
    spec.loader.exec_module(source)
    if not hasattr(source, name):
        raise Refused(f"{path.name} defines no {name}")
    return getattr(source, name)


def _arguments(text: str | None) -> tuple[list, dict]:
    if text is None:
        return [], {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(f"--args is not JSON ({error})") from error
    if isinstance(value, dict):
        return [], value
    return (value, {}) if isinstance(value, list) else ([value], {})


def fill(target: nn.Module, found: dict[str, torch.Tensor], drops: list[str]) -> None:
    """Loads the weights into a module; every tensor on either side must find its partner, except dropped ones."""
    own = target.state_dict()
    want = {name: t for name, t in own.items() if not under_any(name, drops)}
    optional = {name for name in want if name.endswith("num_batches_tracked")}
    missing = {name: t for name, t in want.items() if name not in found and name not in optional}
    unexpected = {name: t for name, t in found.items() if name not in own}
    misshapen = {name: t for name, t in found.items() if name in own and own[name].shape != t.shape}
    problems = []
    if missing:
        problems.append(f"  the module has tensors that the weights lack:\n{listing(missing)}")
    if unexpected:
        problems.append(f"  the weights have tensors that the module lacks:\n{listing(unexpected)}")
    if misshapen:
        lines = [
            f"    {n}: the module has {list(own[n].shape)}, the weights {list(t.shape)}"
            for n, t in misshapen.items()
        ]
        problems.append("  shapes differ:\n" + "\n".join(lines))
    if problems:
        raise Refused(
            "the weights do not fit the module:\n"
            + "\n".join(problems)
            + "\n  rename with --map OLD=NEW, leave out with --drop PREFIX, change sizes with --args"
        )
    target.load_state_dict(found, strict=False)
