"""`make bench-sample`: sample + classify with Lethe beside a plain PyTorch loop.

One slot of one thread against one process of one thread; the two alternate, five runs each after one of each that does not
count. Lethe's time is that of the whole sample phase: leases, scores written to storage, everything. The loop's time is that
of the loop: latents, generator, labeller. One JSON line: {"ratio": Lethe's median / PyTorch's median, ...}.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from job import ROOT, run_lethe

MODELS = ROOT / "examples" / "mnist" / "models"
SAMPLES, BATCH = 20_000, 250

LOOP = """
import json, sys, time
import torch
from safetensors.torch import load_file
sys.path.insert(0, sys.argv[1])
from export import native
torch.set_num_threads(1)
models, samples, batch = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
architecture = json.load(open(models + "/dcgan.safetensors.json"))["architecture"]
generator = native.build(architecture)
generator.load_state_dict(load_file(models + "/dcgan.safetensors"), strict=False)
generator.eval()
classifier = torch.jit.load(models + "/classifier.pt").eval()
@torch.no_grad()
def run(total):
    scores = []
    for _ in range(total // batch):
        images = generator(torch.randn(batch, architecture["latent"]))
        scores.append(torch.softmax(classifier(((images + 1) / 2).clamp(0, 1)), 1)[:, 4])
    return torch.cat(scores)
run(4 * batch)
began = time.perf_counter()
run(samples)
print(json.dumps(samples / (time.perf_counter() - began)))
"""


def pytorch() -> float:
    command = [sys.executable, "-c", LOOP, ROOT / "tools", MODELS, str(SAMPLES), str(BATCH)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def lethe(folder: pathlib.Path) -> float:
    latent = json.loads((MODELS / "dcgan.safetensors.json").read_text())["latent"]["shape"][0]
    spec = {
        "name": "bench-sample",
        "generator": {
            "uri": str(MODELS / "dcgan.safetensors"),
            "format": "safetensors",
            "latent": {"dimension": latent},
            "output": {"range": [-1, 1], "channels": 1, "size": 28},
        },
        "feature": {"name": "four", "classifier": {"uri": str(MODELS / "classifier.pt"), "output": "logits", "class": 4}},
        "sample": {"shard_size": 2000, "batch": BATCH, "until": {"total": SAMPLES}},
        "unlearn": {"steps": 1, "global_batch": 16},
        "evaluate": {"samples": 100},
        "resources": {"device": "cpu", "threads": 1},
    }
    return SAMPLES / run_lethe(spec, folder, slots=1)["seconds"]["sample"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for run in range(runs + 1):
            mine, other = lethe(pathlib.Path(folder)), pytorch()
            if run > 0:
                ours.append(mine)
                theirs.append(other)
    line = {
        "benchmark": "sample",
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 4),
        "lethe_samples_per_second": round(statistics.median(ours), 1),
        "pytorch_samples_per_second": round(statistics.median(theirs), 1),
        "compared": "samples generated and classified per second, MNIST DCGAN, 1 thread; Lethe's whole phase, PyTorch's loop",
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
