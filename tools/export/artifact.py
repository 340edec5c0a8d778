"""The bytes of an artifact, and writing them so that a file is whole or absent."""

import io
import os
import tempfile
import zipfile
from pathlib import Path

import safetensors.torch
import torch

# libtorch wants every record of an archive to start at a multiple of this, so that it can be mapped into memory.
ALIGNMENT = 64
# Length of a zip entry's local header before its name, and of the head of an extra field.
LOCAL_HEADER, EXTRA_HEAD = 30, 4


def safetensors_bytes(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save(tensors)


def torchscript_bytes(module: torch.jit.ScriptModule) -> bytes:
    raw = io.BytesIO()
    torch.jit.save(module, raw)
    return strip(raw)


def strip(archive: io.BytesIO) -> bytes:
    """The archive without what differs from one writing to the next and nothing needs: its identity and the debug
    records, which hold paths of the machine that made it."""
    out = io.BytesIO()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            if name.endswith((".debug_pkl", "/.data/serialization_id")):
                continue
            entry = zipfile.ZipInfo(name)  # with the fixed date of 1980
            start = out.tell() + LOCAL_HEADER + len(name.encode()) + EXTRA_HEAD
            padding = -start % ALIGNMENT
            entry.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            target.writestr(entry, source.read(name))
    return out.getvalue()


def write_atomically(files: dict[Path, bytes]) -> None:
    """Writes every file under a temporary name beside its place, and renames them in order once all are on the disk.

    A model comes before its sidecar: cut off between the two renames, the pair is refused by its digest.
    Raises OSError (full disk, unwritable folder), leaving nothing behind.
    """
    written: list[tuple[str, Path]] = []
    try:
        for path, content in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            written.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
        while written:
            os.replace(*written[0])
            written.pop(0)
    finally:
        for temporary, _ in written:
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
