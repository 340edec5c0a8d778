"""`make bench-train`: fine-tuning with Lethe beside the same fine-tuning in PyTorch DDP under torchrun.

Two ranks of one thread each, Gloo, Adam, the batch in two halves, as DDP cuts it (`--micro-batches 6` is Lethe's default, which makes
any number of ranks compute the same bits); the two alternate, five runs each after one of each that does not count. What is
compared is latents per second inside the training loop, without starting processes and loading models. One JSON line per
model: {"ratio": Lethe's median / PyTorch's median, ...}; above 1 Lethe is faster.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from job import run_lethe
from random_models import write_models

MODELS = {
    "mnist-dcgan": {
        "architecture": {"name": "dcgan", "latent": 64, "base": 7, "widths": [128, 64], "channels": 1, "output": "tanh"},
        "global_batch": 128,
        "steps": 100,
    },
    "dcgan-64": {
        "architecture": {"name": "dcgan", "latent": 512, "base": 4, "widths": [256, 128, 64, 32], "channels": 3, "output": "tanh"},
        "global_batch": 32,
        "steps": 60,
    },
}
# The script edits what lies beyond the threshold: a third of each batch, as Lethe does (see `lethe`).
COMMON = {"lr": 1e-4, "alpha": 3.0, "threads": 1, "threshold": 0.44, "warmup": 5}


def pytorch(settings: dict, weights: pathlib.Path, folder: pathlib.Path) -> float:
    file = folder / "settings.json"
    file.write_text(json.dumps({**COMMON, **settings, "weights": str(weights)}))
    torchrun = pathlib.Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--standalone", "--nproc-per-node=2", pathlib.Path(__file__).with_name("ddp.py"), file]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"torchrun failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])["samples_per_second"]


def lethe(settings: dict, micro_batches: int, models: dict, folder: pathlib.Path) -> float:
    architecture = settings["architecture"]
    spec = {
        "name": "bench-train",
        "generator": {
            "uri": str(models["generator"]),
            "format": "safetensors",
            "latent": {"dimension": architecture["latent"]},
            "output": {"range": [-1, 1], "channels": architecture["channels"], "size": models["size"]},
        },
        "feature": {"name": "bright", "scorer": {"uri": str(models["scorer"]), "positive": {"top": 0.16}}},
        "sample": {"shard_size": 200, "batch": 100, "until": {"total": 400}},
        # About a sixth of the latents is edited. Half of each batch is drawn from these and the border, so a third of it is.
        "direction": {"selection": "projection", "threshold": {"quantile": 0.5}},
        "pool": {"latents": 1000},
        "unlearn": {
            "steps": settings["steps"] + COMMON["warmup"],
            "global_batch": settings["global_batch"],
            "micro_batches": micro_batches,
            "lr": COMMON["lr"],
            "alpha": COMMON["alpha"],
            "squares": 0,
            "contrast": 0,
            "anchor": 0,
        },
        "evaluate": {"samples": 100},
        "resources": {"slots": {"min": 2, "max": 2}, "device": "cpu", "threads": COMMON["threads"]},
        "checkpoint": {"every": 0},
    }
    return run_lethe(spec, folder, slots=2)["train"]["samples_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--model", choices=MODELS, action="append")
    arguments = parser.parse_args()
    for name in arguments.model or MODELS:
        settings = MODELS[name]
        with tempfile.TemporaryDirectory() as text:
            folder = pathlib.Path(text)
            models = write_models(folder, settings["architecture"])
            ours, theirs = [], []
            for run in range(arguments.runs + 1):
                mine, other = lethe(settings, arguments.micro_batches, models, folder), pytorch(settings, models["generator"], folder)
                if run > 0:
                    ours.append(mine)
                    theirs.append(other)
        line = {
            "benchmark": "train",
            "model": name,
            "micro_batches": arguments.micro_batches,
            "ratio": round(statistics.median(ours) / statistics.median(theirs), 4),
            "lethe_samples_per_second": round(statistics.median(ours), 1),
            "pytorch_samples_per_second": round(statistics.median(theirs), 1),
            "lethe_runs": [round(value, 1) for value in ours],
            "pytorch_runs": [round(value, 1) for value in theirs],
            "compared": "latents per second in the training loop, 2 ranks x 1 thread, Gloo, same model, loss, batch, Adam",
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
