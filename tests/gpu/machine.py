"""Where things are, which device is checked, and how its programs are run. Shared by the steps."""

import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BIN = pathlib.Path(os.environ.get("LETHE_BIN_DIR", ROOT / "bin"))
OUT = pathlib.Path(os.environ.get("OUT") or ROOT / "out")
MODELS = ROOT / "examples" / "mnist" / "models"
DEVICE = os.environ.get("LETHE_GPU_DEVICE", "cuda:0")
CPU = DEVICE == "cpu"
SCRATCH = pathlib.Path(os.environ.get("LETHE_GPU_SCRATCH", "/tmp"))


class Failed(Exception):
    """A check that did not hold."""


def describe(cpu: bool) -> dict:
    """The machine as torch sees it."""
    import torch

    machine = {"gpu": None, "torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    if cpu:
        return machine
    try:
        properties = torch.cuda.get_device_properties(0)
        # CUDA must work, not only be counted.
        torch.ones(1, device="cuda").add_(1).item()
        machine.update(
            gpu=properties.name,
            memory_gib=round(properties.total_memory / 2**30, 1),
            capability=f"{properties.major}.{properties.minor}",
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            nccl=".".join(map(str, torch.cuda.nccl.version())),
        )
    except Exception as error:  # noqa: BLE001 - whatever CUDA says is what has to be told
        machine["problem"] = f"{type(error).__name__}: {error}".splitlines()[0]
    return machine


def say(**line) -> None:
    print(json.dumps(line), flush=True)


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Failed(what)


def executor(*arguments, device: str = DEVICE, threads: int = 1, env: dict | None = None, limit: float | None = None) -> list:
    """Runs a subcommand of the executor; gives its JSON lines. Its log goes to this step's."""
    command = [BIN / "lethe-executor", "--device", device, "--threads", str(threads), *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **(env or {})}, timeout=limit
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dispatch(steps: dict) -> None:
    """Runs the part of a step's file that the command line names."""
    try:
        steps[sys.argv[1]]()
    except Failed as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        sys.exit(1)
