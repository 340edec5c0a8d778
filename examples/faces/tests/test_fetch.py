"""Nothing but the package that was looked at is taken, and a package that does not come is named."""

import sys
from pathlib import Path

import fetch
import pytest


def test_another_archive_is_refused_and_nothing_is_taken_out_of_it(tmp_path: Path):
    (tmp_path / fetch.PACKAGES[0].archive).write_bytes(b"something else")
    with pytest.raises(SystemExit, match="is not the generateme 0.1.2 that was looked at"):
        fetch.main(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [fetch.PACKAGES[0].archive]


def test_a_package_that_does_not_come_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(fetch.Unreachable, match="generateme 0.1.2 cannot be fetched"):
        fetch.main(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_npm_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    (package,) = [package for package in fetch.PACKAGES if package.archive.endswith(".tgz")]
    monkeypatch.setattr(fetch, "PACKAGES", [package])
    with pytest.raises(fetch.Unreachable, match="apt-get install npm"):
        fetch.main(tmp_path)
