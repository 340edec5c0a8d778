"""Where things are, and a skip nobody overlooks."""

import os
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent
ROOT = DEPLOY.parent
BINARIES = Path(os.environ.get("LETHE_BIN_DIR", ROOT / "target" / "release"))


def skip_loudly(reason: str) -> None:
    print(f"\nSKIPPED: {reason}", file=sys.__stderr__, flush=True)
    pytest.skip(reason)


def binary(name: str) -> Path:
    path = BINARIES / name
    if not path.exists():
        skip_loudly(f"{name} is not in {BINARIES}: build it, or set LETHE_BIN_DIR")
    return path
