"""How fast fine-tuning and sampling are on this device, beside eager and compiled PyTorch on the same device in the same minute.

A line per variant, in latents a second inside the loop, and a last one with Lethe's fastest default beside the fastest peer under the
same settings. `free` peers may use TF32 and let cuDNN choose by timing: they show what the repeatable settings cost, and are not compared.
Nothing fails for being slow; it fails when one side cannot be measured.
"""

import json
import os
import subprocess
import sys

from machine import CPU, DEVICE, HERE, MODELS, SCRATCH, Failed, dispatch, executor, require, say

THREADS = os.cpu_count() if CPU else 1
STEPS, WARMUP = (6, 2) if CPU else (150, 20)
LIMIT = 300 if CPU else 60
POOL = 250 if CPU else 2000
# The peer edits what lies beyond: as large a share as of Lethe's batches.
THRESHOLD = 0.44
PEERS = [
    ("eager", {}),
    ("eager channels_last", {"channels_last": True}),
    ("compiled", {"compile": "default"}),
    ("compiled with graphs", {"compile": "reduce-overhead"}),
    ("free: compiled with graphs, TF32, benchmark", {"compile": "reduce-overhead", "free": True}),
]


def peer(what: str, settings: dict) -> dict:
    file = SCRATCH / "peer.json"
    common = {"what": what, "device": DEVICE, "threads": THREADS, "compile": None, "channels_last": False, "free": False}
    file.write_text(json.dumps({**common, "steps": STEPS, "warmup": WARMUP, **settings}))
    environment = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_CACHE_DIR": str(SCRATCH / "inductor")}
    environment["TRITON_CACHE_DIR"] = str(SCRATCH / "triton")
    done = subprocess.run(
        [sys.executable, HERE / "peer.py", file], stdout=subprocess.PIPE, text=True, check=False, env=environment, timeout=LIMIT
    )
    require(done.returncode == 0, f"peer.py: exit status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(variants: list) -> dict:
    """Runs each; one that fails is told and does not end the others."""
    speeds, failed = {}, []
    for name, run in variants:
        try:
            line = run()
        except (Failed, subprocess.TimeoutExpired, ValueError, IndexError) as error:
            failed.append(name)
            say(variant=name, failed=str(error)[:300])
            continue
        speeds[name] = line["samples_per_second"]
        say(variant=name, samples_per_second=round(line["samples_per_second"], 1))
    return {"speeds": speeds, "failed": failed}


def conclude(found: dict, what: str) -> None:
    ours = {name: speed for name, speed in found["speeds"].items() if name.startswith("lethe")}
    theirs = {name: speed for name, speed in found["speeds"].items() if name.startswith(("eager", "compiled"))}
    if ours and theirs:
        mine, best = next(iter(ours)), max(theirs, key=theirs.get)
        say(compared=what, ratio=round(ours[mine] / theirs[best], 3), lethe=mine, peer=best)
    require(not found["failed"], f"not measured: {', '.join(found['failed'])}")


def train() -> None:
    import torch
    from models import DCGAN_64, built, locate, spec, write_target
    from random_models import Brightness, write_models

    models = write_models(SCRATCH, DCGAN_64)
    weights, scorer = models["generator"], models["scorer"]
    unit = torch.zeros(DCGAN_64["latent"])
    unit[0] = 1.0
    # A share of 0.16 lies beyond one standard deviation. Half of each batch is drawn from there and the border, which is a third of it.
    straight = write_target(SCRATCH / "straight.safetensors", unit, 1.0, 0.5, 0.01, "projection")
    bright = Brightness()
    scores = lambda images: bright(((images + 1) / 2).clamp(0, 1)).double()  # noqa: E731
    guided = locate(built(DCGAN_64, weights), scores, DCGAN_64["latent"], None, SCRATCH / "guided.safetensors")
    feature = {"name": "bright", "scorer": {"uri": str(scorer), "positive": {"top": 0.16}}}
    for batch in [32] if CPU else [32, 128]:

        def lethe(selection: str, parts: int, *extra) -> dict:
            unlearn = {"steps": STEPS + WARMUP, "global_batch": batch, "micro_batches": parts, "lr": 1e-4, "alpha": 3.0, "squares": 0, "contrast": 0, "anchor": 0}
            job = SCRATCH / "job.json"
            job.write_text(json.dumps(spec(weights, feature, DCGAN_64, direction={"selection": selection}, unlearn=unlearn)))
            target = straight if selection == "projection" else guided
            count = ["--warmup", WARMUP, "--steps", STEPS]
            return executor("bench-train", job, "--target", target, *count, *extra, threads=THREADS, limit=LIMIT)[0]

        def edits(*extra) -> dict:
            line = lethe("classifier", 6, "--pool", POOL, *extra)
            return {"samples_per_second": POOL / line["edit_seconds"]}

        settings = {"architecture": DCGAN_64, "weights": str(weights), "global_batch": batch, "lr": 1e-4, "alpha": 3.0, "threshold": THRESHOLD}
        variants = [
            ("lethe, projection, 6 parts", lambda: lethe("projection", 6)),
            ("lethe, projection, 1 part", lambda: lethe("projection", 1)),
            ("edits of a pool, guided", edits),
            ("edits of a pool, guided, asking after each look", lambda: edits("--looks-per-sync", 1)),
        ]
        variants += [(name, lambda how=how: peer("train", {**settings, **how})) for name, how in PEERS]
        say(model="dcgan-64", global_batch=batch, steps=STEPS)
        conclude(measure(variants), f"dcgan-64, batch {batch}: latents a second, projection, default parts; the fastest repeatable peer")


def sample() -> None:
    from models import digits, spec

    _, _, architecture, feature = digits()
    batch = 250
    job = SCRATCH / "job.json"
    job.write_text(json.dumps(spec(MODELS / "dcgan.safetensors", feature, architecture, sample={"batch": batch})))
    count = ["--warmup", WARMUP * batch, "--count", STEPS * batch]
    settings = {"classifier": str(MODELS / "classifier.pt"), "batch": batch}
    variants = [("lethe", lambda: executor("bench-sample", job, *count, threads=THREADS, limit=LIMIT)[0])]
    variants += [(name, lambda how=how: peer("sample", {**settings, **how})) for name, how in PEERS]
    conclude(measure(variants), f"MNIST DCGAN and classifier, batch {batch}: images scored a second; the fastest repeatable peer")


if __name__ == "__main__":
    dispatch({"train": train, "sample": sample})
