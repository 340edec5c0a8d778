"""What the benchmarks share: where the programs are, a job run by `lethe run`, and its result.

Not here: models made for a job (`random_models`).
"""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("LETHE_BIN_DIR", ROOT / "target" / "release"))
LETHE = BIN / "lethe"


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
