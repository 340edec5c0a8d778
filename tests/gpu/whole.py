"""A whole job by `lethe run`, and the same job whose executor is killed while it trains: it ends all the same, with the same bits."""

import json
import os
import pathlib
import signal
import subprocess
import time

from machine import BIN, CPU, MODELS, SCRATCH, Failed, digest, require, say

STEPS = 60 if CPU else 300
SAMPLES = 1000 if CPU else 3000


def begin(name: str) -> tuple:
    from models import digits, spec

    _, _, architecture, feature = digits()
    sections = {
        "sample": {"seed": 1, "until": {"total": SAMPLES}},
        "direction": {"margin": 1.2},
        "pool": {"latents": SAMPLES},
        "unlearn": {"steps": STEPS, "global_batch": 96, "lr": 5e-4, "alpha": 6},
        "evaluate": {"samples": SAMPLES, "features": str(MODELS / "features.pt")},
        "checkpoint": {"every": 5},
    }
    job, out = SCRATCH / f"{name}.json", SCRATCH / name
    job.write_text(json.dumps(spec(MODELS / "dcgan.safetensors", feature, architecture, **sections)))
    command = [BIN / "lethe", "run", job, "--out", out, "--fresh", "-o", "json"]
    if CPU:
        command += ["--slots", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}), out


def finish(process: subprocess.Popen, out: pathlib.Path) -> tuple:
    text, _ = process.communicate()
    require(process.returncode == 0, f"lethe run: exit status {process.returncode}")
    result = json.loads(text)
    figures = {f"{figure['group']}.{figure['name']}": figure["after"] for figure in result["figures"]}
    return digest(out / "generator.safetensors"), figures, result


def executors(parent: int) -> list:
    """Processes of this parent that are executors."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if lines.get("Name") == "lethe-executor" and int(lines.get("PPid", 0)) == parent:
            found.append(int(status.parent.name))
    return found


def checkpoints(out: pathlib.Path) -> int:
    return len(list(out.glob(".lethe/artifacts/jobs/*/checkpoints/*/manifest.json")))


def main() -> None:
    begun = time.monotonic()
    whole, figures, result = finish(*begin("whole"))
    say(run="whole", generator=whole[:16], seconds=round(time.monotonic() - begun, 1), phases=result["seconds"], figures=figures)
    left = figures.get("feature.remaining_share")
    # So few steps forget little on a cpu; there only that it is measured.
    require(left is not None and (CPU or left < 0.5), f"remaining share {left}: the feature is still there")

    process, out = begin("killed")
    while checkpoints(out) < 1:
        if process.poll() is not None:
            raise Failed(f"it ended before it had a checkpoint: exit status {process.returncode}")
        time.sleep(0.02)
    victims = executors(process.pid)
    require(len(victims) == 1, f"executors of one slot: {victims}")
    os.kill(victims[0], signal.SIGKILL)
    killed = time.monotonic()
    while not (set(executors(process.pid)) - set(victims)):
        if process.poll() is not None:
            raise Failed("it ended without another executor: was training over before the kill?")
        time.sleep(0.02)
    restarted = round(time.monotonic() - killed, 2)
    again, figures_again, _ = finish(process, out)
    say(run="killed", generator=again[:16], seconds_to_another_executor=restarted)
    require(again == whole, f"another generator after the kill: {whole[:16]} {again[:16]}")
    require(figures_again == figures, f"other figures after the kill: {figures} {figures_again}")


if __name__ == "__main__":
    from machine import dispatch

    import sys

    sys.argv = [sys.argv[0], "main"]
    dispatch({"main": main})
