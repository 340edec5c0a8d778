"""What `run.sh` runs: steps, each a process with a time limit of its own. One that fails does not keep the others from running.

Prints one JSON line per step and per measurement, and at the end `N passed, M failed`. All lines also go to results.jsonl in $OUT, beside
a log per step.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from machine import HERE, OUT, describe

# Seconds after which no step is begun. What is left out has failed: it was not checked.
BUDGET = 530

# name, what it shows, time limit in seconds on a GPU, command
STEPS = [
    ("libraries", "every binary finds its libraries, and libtorch its CUDA ones", 30, ["values.py", "libraries"]),
    ("values", "latents, images, scores, edits, losses, gradients and a short training against the cpu", 90, ["values.py", "compare"]),
    ("nccl", "NCCL in a joined group of one: sums, broadcast, reducer, abort", 40, ["gangs.py", "nccl"]),
    ("repeat", "two equal trainings give the same bits", 40, ["training.py", "repeat"]),
    ("joined", "a gang of one that joins a real group trains the bits of the loopback", 30, ["training.py", "joined"]),
    ("ranks", "two and three ranks on this one device train the bits of one", 75, ["training.py", "ranks"]),
    ("hung", "a hung collective and a hung joining end; a killed peer is noticed", 60, ["gangs.py", "hung"]),
    ("job", "a whole job, and the same job with its executor killed: the same generator", 120, ["whole.py"]),
    ("train-speed", "fine-tuning a 64 px DCGAN beside eager and compiled PyTorch", 150, ["speed.py", "train"]),
    ("sample-speed", "sampling beside eager and compiled PyTorch", 75, ["speed.py", "sample"]),
]


def run(command: list, limit: float, log: pathlib.Path) -> tuple:
    """Runs one step; gives what it printed in JSON, and why it failed, if it did."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=errors, cwd=HERE, start_new_session=True
        )
        try:
            output, _ = process.communicate(timeout=limit)
            problem = None if process.returncode == 0 else f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            # The whole session: executors and ranks too.
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            problem = f"not done within {limit:.0f} s"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    lines = []
    for line in output.decode(errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            with log.open("a") as errors:
                errors.write(line + "\n")
    if problem:
        tail = log.read_text(errors="replace").strip().splitlines()[-12:]
        problem += ": " + " | ".join(tail) if tail else ": it said nothing"
    return lines, problem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="run every part that can run on the cpu")
    parser.add_argument("--only", action="append", metavar="STEP", help="run this step; more than once for several")
    arguments = parser.parse_args()
    wanted = arguments.only or [step[0] for step in STEPS]
    unknown = set(wanted) - {step[0] for step in STEPS}
    if unknown:
        parser.error(f"there is no step {', '.join(sorted(unknown))}: there are {', '.join(step[0] for step in STEPS)}")
    os.environ["LETHE_GPU_DEVICE"] = "cpu" if arguments.cpu else "cuda:0"
    OUT.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    passed = failed = 0
    with (OUT / "results.jsonl").open("w") as results:

        def say(line: dict) -> None:
            text = json.dumps(line)
            print(text, flush=True)
            results.write(text + "\n")
            results.flush()

        machine = describe(arguments.cpu)
        say({"machine": machine})
        if not arguments.cpu and not machine["gpu"]:
            print(f"NO GPU: torch sees none ({machine['problem']}), so NOTHING was checked", flush=True)
            return 3
        for name, shows, limit, command in STEPS:
            if name not in wanted:
                continue
            # A cpu of two cores takes several times as long, and nobody waits for it by the minute.
            left = limit * 6 if arguments.cpu else min(limit, BUDGET - (time.monotonic() - begun))
            step = time.monotonic()
            if left < 10:
                lines, problem = [], f"not begun: the {BUDGET} s of this run are over"
            else:
                with tempfile.TemporaryDirectory(prefix="lethe-gpu-") as scratch:
                    os.environ["LETHE_GPU_SCRATCH"] = scratch
                    lines, problem = run(command, left, OUT / f"{name}.log")
            for line in lines:
                say({"step": name, **line})
            seconds = round(time.monotonic() - step, 1)
            say({"step": name, "passed": problem is None, "seconds": seconds, "shows": shows, **({"problem": problem} if problem else {})})
            passed, failed = passed + (problem is None), failed + (problem is not None)
        where = "on the cpu, so NOTHING was checked on a GPU" if arguments.cpu else f"on {machine['gpu']}"
        say({"summary": f"{passed} passed, {failed} failed", "where": where, "seconds": round(time.monotonic() - begun, 1)})
    print(f"{passed} passed, {failed} failed, {where}; logs in {OUT}", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
