"""Runs from Python the artifacts that convert.py made, and a generator that Lethe published."""

import json
import sys
from pathlib import Path

import safetensors.torch
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools"))

from export import native  # noqa: E402

MODELS = HERE / ".models"
HAPPY = {"emotion": 3, "expression": 1}  # the class in each net
PART = 250


@torch.no_grad()
def images(generator: Path, count: int, seed: int) -> torch.Tensor:
    """The generator's images [count, 3, 64, 64] in [0, 1], at latents that depend on the seed alone."""
    sidecar = json.loads(generator.with_name(generator.name + ".json").read_text())
    model = native.load(sidecar["architecture"], safetensors.torch.load_file(generator))
    latents = torch.randn(count, sidecar["architecture"]["latent"], generator=torch.Generator().manual_seed(seed))
    return torch.cat([(model(part) + 1) / 2 for part in latents.split(PART)])


@torch.no_grad()
def outputs(name: str, faces: torch.Tensor) -> torch.Tensor:
    """What the artifact `name`.pt gives for faces in [0, 1]."""
    model = torch.jit.load(MODELS / f"{name}.pt")
    return torch.cat([model(part) for part in faces.split(PART)])


def happiness(name: str, faces: torch.Tensor) -> torch.Tensor:
    """Log-odds of the class happy, by `emotion` or `expression`: positive where the net sees a smile."""
    logits = outputs(name, faces)
    happy = HAPPY[name]
    others = [i for i in range(logits.size(1)) if i != happy]
    return logits[:, happy] - logits[:, others].logsumexp(1)
