"""Where things are."""

import os
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parent.parent
ROOT = DEPLOY.parent
BINARIES = Path(os.environ.get("LETHE_BIN_DIR", ROOT / "target" / "release"))


def binary(name: str) -> Path:
    path = BINARIES / name
    if not path.exists():
        pytest.skip(f"{name} is not in {BINARIES}: build it, or set LETHE_BIN_DIR")
    return path
