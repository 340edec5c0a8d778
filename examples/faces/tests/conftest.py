"""The models, fetched and converted once; and the example's own files, importable."""

import sys
from pathlib import Path

import pytest

FACES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(FACES))

import convert  # noqa: E402
import fetch  # noqa: E402


@pytest.fixture(scope="session")
def fetched() -> Path:
    try:
        fetch.main(fetch.FOLDER)
    except fetch.Unreachable as reason:
        pytest.skip(f"the face models are not here: {reason}")
    return fetch.FOLDER


@pytest.fixture(scope="session")
def models(fetched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "fetched").symlink_to(fetched)
    convert.main(folder)
    return folder
