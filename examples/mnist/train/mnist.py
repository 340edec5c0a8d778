"""Reads MNIST from its four idx files.

Nothing is downloaded: the scripts that need the data take `--data DIR`, a folder
with `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz`.
"""

import gzip
from pathlib import Path

import numpy as np
import torch

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> torch.Tensor:
    """The u8 tensor in a gzipped idx file (format: LeCun's MNIST page)."""
    with gzip.open(path) as file:
        raw = file.read()
    zero, kind, rank = int.from_bytes(raw[:2], "big"), raw[2], raw[3]
    if zero != 0 or kind != UNSIGNED_BYTE:
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    shape = np.frombuffer(raw, ">u4", rank, offset=4).astype(int).tolist()
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} holds {values.size} values, its header says {shape}")
    return torch.from_numpy(values.reshape(shape).copy())


def load(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images u8 [N, 1, 28, 28] and labels u8 [N] of split `train` or `t10k`."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
    return images.unsqueeze(1), labels


def to_float(images: torch.Tensor) -> torch.Tensor:
    """u8 images as f32 in [0, 1]."""
    return images.float() / 255.0
