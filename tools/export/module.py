"""The module that the user brings: built from a class or a function in a Python file, or a TorchScript archive."""

import importlib.util
import inspect
import json
import sys
from pathlib import Path

import torch
from torch import nn

from . import recognise
from .refusal import Refused, gist, listing
from .weights import under_any

FROM_CLASS = "give it as --weights, with its class as --module FILE.py:CLASS"


def load(spec: str, arguments: str | None) -> nn.Module:
    """The module of `FILE.py:NAME` (a class, or a function that returns a module) or of a TorchScript archive."""
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py"):
        return _archive(spec)
    path = Path(file).resolve()
    if not path.is_file():
        raise Refused(f"there is no source file {file}")
    positional, named = _arguments(arguments)
    make = _attribute(path, name)
    try:
        built = make(*positional, **named)
    except Exception as error:  # the user's own code may raise anything
        raise Refused(
            f"{spec} cannot be built ({gist(error)}): give its constructor's arguments with --args, as a JSON object "
            "or list,\n  or write a function without arguments into that file that builds it, and name the function"
        ) from error
    if not isinstance(built, nn.Module):
        raise Refused(f"{spec} makes a {type(built).__name__}, not a torch.nn.Module")
    return built.float()


def has_own_weights(spec: str, arguments: str | None) -> bool:
    """Whether it comes with its weights rather than with random ones: two of it, built apart, are equal."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = load(spec, arguments).state_dict()
        torch.manual_seed(2)
        second = load(spec, arguments).state_dict()
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def _archive(spec: str) -> torch.jit.ScriptModule:
    path = Path(spec)
    if not path.is_file():
        raise Refused(
            f"--module {spec}: wanted FILE.py:CLASS or a TorchScript archive, and there is no such file"
        )
    if path.suffix == ".py":
        raise Refused(f"--module {spec} names no class: add it as --module {spec}:CLASS")
    if not recognise.is_torchscript(path):
        what = recognise.stranger(path)
        raise Refused(f"{path} is {what}" if what else f"{path} is no TorchScript archive: {FROM_CLASS}")
    try:
        return torch.jit.load(path, map_location="cpu").float()
    except RuntimeError as error:
        raise Refused(
            f"{path} cannot be read as a TorchScript archive by PyTorch {torch.__version__} ({gist(error)})"
        ) from error


def _attribute(path: Path, name: str):
    sys.path.insert(0, str(path.parent))  # so that the file finds its neighbours
    title = f"user_{path.stem}" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(title, path)
    source = importlib.util.module_from_spec(spec)
    sys.modules[title] = source  # torch.jit looks the class's module up by name
    try:
        spec.loader.exec_module(source)
    except (Exception, SystemExit) as error:
        raise Refused(f"{path.name} cannot be imported ({gist(error)}): {_import_advice(error)}") from error
    if not hasattr(source, name):
        classes = [
            key
            for key, value in vars(source).items()
            if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        raise Refused(f"{path.name} defines no {name}; its modules: {', '.join(classes) or 'none'}")
    return getattr(source, name)


def _import_advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"install it with {sys.prefix}/bin/pip install {error.name}, or copy the class into a file that does without"
    if "relative import" in str(error):
        return (
            "it is part of a package: write a file beside the package that says `from PACKAGE.FILE import CLASS`, and "
            "name that file"
        )
    return "importing runs it; a training script does not stand that. Copy the class into a file of its own"


def _arguments(text: str | None) -> tuple[list, dict]:
    if text is None:
        return [], {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(f"--args is not JSON ({error}): write it as '{{\"nz\": 100}}' or '[100]'") from error
    if isinstance(value, dict):
        return [], value
    return (value, {}) if isinstance(value, list) else ([value], {})


class _Holder(nn.Module):
    """A module around an archive, for a forward of its own."""

    def __init__(self, inner: torch.jit.ScriptModule):
        super().__init__()
        self.inner = inner


def use_method(module: nn.Module, method: str | None, spec: str) -> nn.Module:
    """The module with another method (a VAE's `decode`) as its forward, or the part of it that has this name."""
    part = getattr(module, method, None) if method else None
    if isinstance(part, nn.Module):
        return part
    if not _has(module, method or "forward"):
        raise Refused(_lacking(module, method, spec))
    if method is None:
        return module
    if isinstance(module, torch.jit.ScriptModule):
        held = torch.jit.script(_Holder(module))
        held.define(f"def forward(self, x):\n    return self.inner.{method}(x)\n")
        return held
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"forward": getattr(kind, method)})
    return module


def _has(module: nn.Module, method: str) -> bool:
    if isinstance(module, torch.jit.ScriptModule):
        return method in module._c._method_names()
    if method == "forward":  # every module has PyTorch's own, which only raises; one may be set on the object
        return getattr(module.forward, "__func__", None) is not nn.Module.forward
    return callable(getattr(type(module), method, None))


def _lacking(module: nn.Module, method: str | None, spec: str) -> str:
    """What to do about a module without this method, or without forward: the ways that are there."""
    missing = f"--method {method}: {spec} has no such method or part" if method else f"{spec} has no method `forward`"
    ways = other_ways(module)
    if not ways and _has(module, "forward"):
        return f"{missing}; it has `forward` alone: leave --method out"
    if not ways:
        return f"{missing}, nor any other: it holds weights without code; {FROM_CLASS}"
    choice = f"{missing}; it has {', '.join(ways)}: choose with --method"
    parts_alone = isinstance(module, torch.jit.ScriptModule) and not module._c._method_names()
    return f"{choice}, or {FROM_CLASS}" if parts_alone else choice


def other_ways(module: nn.Module) -> list[str]:
    """What `--method` could name instead of forward: methods that its class adds, and its parts.

    A part that is a single layer makes no images: such are named where there is nothing else.
    """
    parts = dict(module.named_children())
    if isinstance(module, torch.jit.ScriptModule):
        own = module._c._method_names()
        parts = {name: part for name, part in parts.items() if _has(part, "forward")}
    elif type(module).__module__.startswith("torch."):  # a Sequential has `append`
        own = []
    else:
        own = [name for name, value in vars(type(module)).items() if inspect.isfunction(value)]
    found = [name for name in own if name != "forward" and not name.startswith("_")]
    found += [name for name, part in parts.items() if any(True for _ in part.children())]
    found = found or list(parts)
    return found[:10] + ["..."] * (len(found) > 10)


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
