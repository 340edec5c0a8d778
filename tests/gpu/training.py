"""Whether training gives the same bits again: from run to run, through a real group instead of a loopback, on two and three ranks."""

import json

from machine import CPU, MODELS, SCRATCH, dispatch, digest, executor, require, say

STEPS = 20 if CPU else 60
# Ranks that share a card talk over sockets of this machine.
SHARED = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1", "NCCL_DEBUG": "WARN"}


def prepare() -> tuple:
    from models import digits, locate, spec

    generator, scores, architecture, feature = digits()
    target = locate(generator, scores, architecture["latent"], 0.0, SCRATCH / "target.safetensors")
    job = SCRATCH / "job.json"
    unlearn = {"steps": 1000, "global_batch": 96, "micro_batches": 6, "lr": 5e-4, "alpha": 6}
    job.write_text(json.dumps(spec(MODELS / "dcgan.safetensors", feature, architecture, unlearn=unlearn)))
    return job, target


def train(job, target, name: str, *extra) -> str:
    """Trains; gives the digest of the weights."""
    weights = SCRATCH / f"{name}.safetensors"
    begun = ["bench-train", job, "--target", target, "--warmup", 1, "--steps", STEPS, "--weights", weights, *extra]
    line = executor(*begun, env=SHARED)[0]
    sha = digest(weights)
    say(run=name, weights=sha[:16], loss_first=line["loss_first"], loss_last=line["loss_last"], steps_per_second=round(line["steps_per_second"], 2))
    return sha


def same(runs: dict) -> None:
    require(len(set(runs.values())) == 1, f"the weights differ: { {name: sha[:16] for name, sha in runs.items()} }")


def repeat() -> None:
    files = prepare()
    same({name: train(*files, name) for name in ["first", "second", "third"]})


def joined() -> None:
    files = prepare()
    same({"loopback": train(*files, "loopback"), "joined": train(*files, "joined", "--join")})


def ranks() -> None:
    files = prepare()
    runs = {"1": train(*files, "1")}
    for count in [2, 3]:
        runs[str(count)] = train(*files, str(count), "--ranks", count, "--share")
    same(runs)


if __name__ == "__main__":
    dispatch({"repeat": repeat, "joined": joined, "ranks": ranks})
