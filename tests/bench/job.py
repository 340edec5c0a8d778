"""What the benchmarks share: a job made of random weights, run by `lethe run`, and its result."""

import json
import os
import pathlib
import subprocess
import sys

import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("LETHE_BIN_DIR", ROOT / "target" / "release"))
LETHE = BIN / "lethe"
sys.path.insert(0, str(ROOT / "tools"))
from export import native, sidecar  # noqa: E402


class Brightness(torch.nn.Module):
    """A scorer that costs nothing, where the labeller is not what is measured."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).mean(1)


def write_models(folder: pathlib.Path, architecture: dict) -> dict:
    """A generator of this architecture with random weights and a scorer, as artifacts. Gives their paths."""
    torch.manual_seed(0)
    module = native.build(architecture).eval()
    weights = folder / "generator.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in native.tensors(module).items()}, weights)
    size = native.image_shape(architecture)[-1]
    description = {
        "schema_version": 1,
        "kind": "generator",
        "format": "safetensors",
        "architecture": architecture,
        "latent": {"shape": [architecture["latent"]], "prior": "normal"},
        "output": {
            "range": list(native.OUTPUT_RANGE[architecture["output"]]),
            "channels": architecture["channels"],
            "height": size,
            "width": size,
        },
        "sha256": sha256(weights),
        "source": "random weights, for measuring only",
    }
    (folder / "generator.safetensors.json").write_text(json.dumps(description))
    scorer = folder / "scorer.pt"
    torch.jit.script(Brightness()).save(str(scorer))
    return {"generator": weights, "scorer": scorer, "size": size}


def sha256(path: pathlib.Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_lethe(spec: dict, folder: pathlib.Path, slots: int) -> dict:
    """Runs a job from start to end and gives its result.json."""
    file = folder / "job.json"
    file.write_text(json.dumps(spec))
    out = folder / "out"
    command = [LETHE, "run", file, "--out", out, "--slots", str(slots), "--fresh", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"})
    if done.returncode != 0:
        raise SystemExit(f"lethe run failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout)


def figure(result: dict, group: str, name: str) -> dict:
    """A figure of result.json."""
    return next(found for found in result["figures"] if (found["group"], found["name"]) == (group, name))
