"""That a run says what it did: without a GPU nothing, and of each step whether it failed, was too slow, or passed."""

import glob
import os
import pathlib
import subprocess
import sys
import time

import pytest

GPU = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(GPU))

import main  # noqa: E402


def run(script: str, tmp_path: pathlib.Path, limit: float = 30) -> tuple:
    return main.run(["-c", script], limit, tmp_path / "log")


@pytest.mark.skipif(bool(glob.glob("/proc/driver/nvidia/gpus/*") + glob.glob("/dev/nvidia[0-9]*")), reason="there is a GPU")
def test_without_a_gpu_nothing_is_said_to_have_passed():
    done = subprocess.run([GPU / "run.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "NO GPU" in done.stderr and "NOTHING was checked" in done.stderr
    assert "passed" not in done.stdout + done.stderr


def test_a_step_gives_its_lines_and_keeps_the_rest_in_its_log(tmp_path):
    lines, problem = run('print("""{"a": 1}""", flush=True); print("not json")', tmp_path)
    assert (lines, problem) == ([{"a": 1}], None)
    assert "not json" in (tmp_path / "log").read_text()


def test_a_step_that_fails_says_why(tmp_path):
    lines, problem = run('import sys; print("""{"a": 1}"""); sys.exit("the reason")', tmp_path)
    assert lines == [{"a": 1}] and problem.startswith("exit status 1") and "the reason" in problem


def test_a_step_that_hangs_ends_with_its_children_and_keeps_what_it_said(tmp_path):
    script = (
        'import subprocess, sys, time; child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]);'
        'print("""{"child": %d}""" % child.pid, flush=True); time.sleep(600)'
    )
    lines, problem = run(script, tmp_path, limit=3)
    assert problem.startswith("not done within 3 s")
    (line,) = lines
    deadline = time.monotonic() + 20
    while alive(line["child"]):
        assert time.monotonic() < deadline, "the child goes on"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_step_is_documented_and_fits_into_the_time():
    text = (GPU.parents[1] / "docs" / "gpu.md").read_text()
    assert [name for name, *_ in main.STEPS if f"| `{name}` |" not in text] == []
    assert all((GPU / command[0]).exists() for *_, command in main.STEPS)
    assert main.BUDGET <= 9 * 60


def test_the_kit_carries_what_makes_the_models(tmp_path):
    """From the files that pack.sh lays out beside the binaries, and no checkout around them."""
    lines = (GPU / "pack.sh").read_text().splitlines()
    lay_out = [f"kit={tmp_path / 'kit'}", *(line for line in lines if line.startswith(("mkdir ", "cp ")))]
    subprocess.run(["bash", "-euc", "\n".join(lay_out)], cwd=GPU.parents[1], check=True)
    make = (
        "import pathlib, models, peer, random_models; models.digits();"
        "made = random_models.write_models(pathlib.Path.cwd(), models.DCGAN_64);"
        "models.built(models.DCGAN_64, made['generator'])"
    )
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path / "kit" / "tests" / "gpu", check=True)


def test_out_can_be_anywhere(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path / "deep" / "out"), "LETHE_BIN_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, GPU / "main.py", "--cpu", "--only", "libraries"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1, "there are no binaries, so it fails"
    assert "0 passed, 1 failed, on the cpu, so NOTHING was checked on a GPU" in done.stdout
    assert "lethe is not there" in (tmp_path / "deep" / "out" / "results.jsonl").read_text()
