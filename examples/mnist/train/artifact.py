"""Writes a model file and the sidecar that describes it to Lethe.

The sidecar lies beside the model, named `<model file>.json`; docs of the fields are
in the repository's model documentation. Training code is deliberately not here.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

MODELS = Path(__file__).resolve().parent.parent / "models"
SOURCE = "trained on MNIST by examples/mnist/train/{script}; see examples/mnist/README.md"


def write_torchscript(name: str, module: torch.nn.Module, **description) -> Path:
    """Scripts `module` in eval mode into `models/<name>.pt`."""
    path = MODELS / f"{name}.pt"
    path.parent.mkdir(exist_ok=True)
    torch.jit.save(torch.jit.script(module.eval()), path)
    write_sidecar(path, format="torchscript", architecture=None, **description)
    return path


def write_safetensors(name: str, tensors: dict[str, torch.Tensor], **description) -> Path:
    """Writes `tensors` into `models/<name>.safetensors`, contiguous and in f32."""
    path = MODELS / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.detach().float().contiguous() for key, value in tensors.items()}, path)
    write_sidecar(path, format="safetensors", **description)
    return path


def write_sidecar(path: Path, **description) -> None:
    """Writes the description of the model at `path`, with its digest."""
    sidecar = {
        "schema_version": 1,
        **description,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    text = json.dumps(sidecar, indent=2) + "\n"
    path.with_name(path.name + ".json").write_text(text)
    print(f"wrote {path.name} ({path.stat().st_size / 1e6:.2f} MB)")
