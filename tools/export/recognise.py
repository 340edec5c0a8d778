"""What a file is that PyTorch cannot read, by its first bytes: so that the refusal says what to do about it."""

import zipfile
from pathlib import Path

TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its zip format: a pickled number

BEGINNINGS = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: run `git lfs pull` where it came from",
    ),
    (
        b"\x89HDF",
        "an HDF5 file, as Keras writes: save the weights from PyTorch, with torch.save(module.state_dict(), ...)",
    ),
    (
        b"\x93NUMPY",
        "a NumPy array: save a state dict instead, with torch.save({name: torch.from_numpy(array), ...}, ...)",
    ),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "compressed with xz: unpack it first"),
]


def zip_names(path: Path) -> list[str]:
    """The names of the entries of a zip file, none when it is not one."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def is_torchscript(path: Path) -> bool:
    return any(name.endswith("/constants.pkl") for name in zip_names(path))


def is_safetensors(path: Path) -> bool:
    """By content: the length of a JSON header in 8 bytes, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def stranger(path: Path) -> str | None:
    """What the file is and what to do, when it is a known kind of file that holds no PyTorch weights."""
    with path.open("rb") as file:
        start = file.read(512)
    if path.suffix == ".onnx":  # its bytes say nothing sure
        return "an ONNX graph, which cannot be trained here: bring the PyTorch class and weights that it was made from"
    if not start:
        return "empty: copy it again from its source"
    for beginning, what in BEGINNINGS:
        if start.startswith(beginning):
            return what
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file itself: download it again, by the link to the raw file"
    names = zip_names(path)
    if any(
        name.endswith("/archive_format") or name == "archive_format" or name.endswith("models/model.json")
        for name in names
    ):
        return (
            "a program of torch.export (.pt2), which cannot be trained here: save its weights with\n"
            f"  torch.save(torch.export.load({str(path)!r}).state_dict, 'weights.pth'), and give them as --weights with "
            "the class, --module FILE.py:CLASS"
        )
    if names and not any(name.endswith("data.pkl") for name in names):
        return f"a zip file of {len(names)} entries, the first {names[0]}, but not one of PyTorch's: unpack it first"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and TORCH_MAGIC not in start[:32]:
        return (
            "written by pickle.dump, not by torch.save, and reading it would run code that its author chose: where you "
            "trust it, load it and save\n  the state dict alone, with torch.save(module.state_dict(), 'weights.pth')"
        )
    return None
