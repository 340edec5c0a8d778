"""Whether this Python can run the exporter, said before anything is imported that it may lack."""

import importlib
import sys
from pathlib import Path

NEEDED = ("torch", "numpy", "safetensors.torch")


def problem(checkout: Path) -> str | None:
    """The first module that cannot be imported, and the one command to type; None when all is there."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:  # OSError: one of the libraries that torch opens is not there
            return _say(name.partition(".")[0], error, checkout)
    return None


def _say(name: str, error: Exception, checkout: Path) -> str:
    found = f"this Python ({sys.executable}) cannot import {name}: {str(error).splitlines()[0]}"
    ours = checkout / ".venv"
    if ours.is_dir() and Path(sys.prefix).resolve() != ours.resolve():
        return f"{found}\n  run tools/export with the checkout's own: {ours}/bin/python"
    return (
        f"{found}\n  `make demo` installs what Lethe's own programs need, and of PyTorch only the parts that they link.\n"
        "  The rest, for Python (without a GPU 2 GB more), comes with one command, once:\n\n"
        f"    make -C {checkout} export-deps\n"
    )
