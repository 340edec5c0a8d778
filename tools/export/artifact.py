"""The bytes of an artifact, and writing them so that a file is whole or absent."""

import errno
import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import safetensors.torch
import torch

from .refusal import Refused

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


def refuse_to_replace(model: Path, sidecar: Path) -> None:
    """Refuses a place where something is that was not written here: what was is a model and the sidecar with its digest.
    Where writing them was cut off there is no such pair, and what is left stays too."""
    there = [str(path) for path in (model, sidecar) if os.path.lexists(path)]
    if there and not _is_ours(model, sidecar):
        raise Refused(
            f"{' and '.join(there)} would be replaced, and tools/export did not write it, or it was changed since. "
            "Choose another --out, move it away, or allow it with --force"
        )


def _is_ours(model: Path, sidecar: Path) -> bool:
    if any(path.is_symlink() or not path.is_file() for path in (model, sidecar)):
        return False
    try:
        description = json.loads(sidecar.read_bytes())
    except ValueError:
        return False
    with model.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return isinstance(description, dict) and description.get("sha256") == found


def write_atomically(files: dict[Path, bytes], replace: bool = True) -> None:
    """Writes every file under a temporary name beside its place, and moves them there in order once all are on the disk.

    A model comes before its sidecar: cut off between the two, the pair is refused by its digest.
    Raises OSError (full disk, unwritable folder; FileExistsError where nothing is to be replaced and something is
    there), leaving nothing behind.
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
            temporary, path = written[0]
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
                os.unlink(temporary)
            written.pop(0)
            _sync(path.parent)
    finally:
        for temporary, _ in written:
            os.unlink(temporary)


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable, where the file system knows of that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
