"""`make bench-fleet`: what a fleet costs and how it recovers, beside others on the same machine in the same run.

One JSON line for each measurement, each with a sentence on what was compared with what. `--only NAME` runs some of them.
"""

import argparse
import json
import math
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from job import BIN
from random_models import write_models
from train import COMMON, MODELS

HERE = pathlib.Path(__file__).parent
PYTHON = pathlib.Path(sys.executable)
TASKS = 10_000
KILLS = 10


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def rounded(value: float) -> float:
    return float(f"{value:.4g}")


def until(what: str, holds, seconds: float = 120.0, pause: float = 0.01):
    """Looks until `holds` gives something; what it gave."""
    deadline = time.time() + seconds
    while True:
        found = holds()
        if found:
            return found
        if time.time() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(pause)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- leases ---------------------------------------------------------------------------------------------------------


def bench_leases(*arguments: str) -> dict:
    command = [BIN / "lethe-bench-leases", "--coordinator", BIN / "lethe-coordinator", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"lethe-bench-leases failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout)


HYPERQUEUE = """
import time
from hyperqueue import Job, LocalCluster
with LocalCluster() as cluster:
    cluster.start_worker()
    client = cluster.client()
    job = Job()
    for _ in range(%d):
        job.program(["true"], stdout=None, stderr=None)
    began = time.time()
    client.wait_for_jobs([client.submit(job)])
    print(%d / (time.time() - began))
""" % (TASKS, TASKS)


RAY = """
import time, ray
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
@ray.remote
def nothing():
    return None
ray.get([nothing.remote() for _ in range(100)])
began = time.time()
ray.get([nothing.remote() for _ in range(%d)])
print(%d / (time.time() - began))
""" % (TASKS, TASKS)


def tasks_per_second(module: str, script: str) -> float | None:
    """What a script says that imports this module; none where it is not installed."""
    if subprocess.run([PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode != 0:
        return None
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        command = [PYTHON, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=900, cwd=folder)
    if done.returncode != 0:
        raise SystemExit(f"{module} failed:\n{done.stderr}")
    return float(done.stdout.strip().splitlines()[-1])


def leases() -> None:
    ours = [bench_leases("--shards", "40000", "--slots", "256") for _ in range(3)]
    middle = sorted(ours, key=lambda line: line["leases_per_second"])[1]
    others = {
        "hyperqueue_tasks_per_second": tasks_per_second("hyperqueue", HYPERQUEUE),
        "ray_tasks_per_second": tasks_per_second("ray", RAY),
    }
    say(
        {
            "benchmark": "leases",
            "leases_per_second": rounded(middle["leases_per_second"]),
            "coordinator_ms_per_lease": rounded(middle["coordinator_ms_per_lease"]),
            "coordinator_peak_mb": rounded(middle["coordinator_peak_mb"]),
            **{name: value and rounded(value) for name, value in others.items()},
            "compared": f"Lethe: 40,000 shards as single leases over gRPC to 256 slots of workers that answer at once, each in redb "
            f"before it is acknowledged, the coordinator on one core, median of 3. HyperQueue: an array of {TASKS} x /bin/true, "
            f"a process each, both cores. Ray: {TASKS} empty functions in two worker processes.",
        }
    )


def scale() -> None:
    curve = []
    for slots, workers in ((100, 4), (1_000, 8), (10_000, 40)):
        line = bench_leases("--shards", "50000", "--slots", str(slots), "--workers", str(workers))
        curve.append({"slots": slots, "leases_per_second": rounded(line["leases_per_second"])})
    large = bench_leases("--shards", "100000", "--jobs", "10", "--slots", "10000", "--workers", "40", "--shards-per-lease", "32")
    rates = [point["leases_per_second"] for point in curve]
    say(
        {
            "benchmark": "scale",
            "curve": curve,
            "slowest_to_fastest": rounded(min(rates) / max(rates)),
            "slots": large["slots"],
            "shards": large["shards"],
            "shards_per_second": rounded(large["shards_per_second"]),
            "coordinator_peak_mb": rounded(large["coordinator_peak_mb"]),
            "compared": "the real coordinator with redb at 100, 1,000 and 10,000 slots (50,000 single leases each); then 10 jobs of "
            "100,000 shards on 10,000 slots, up to 32 shards a lease, and the most memory the coordinator had",
        }
    )


# ---- recovery -------------------------------------------------------------------------------------------------------


class Fleet:
    """A coordinator and three workers of one slot."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.processes: list[subprocess.Popen] = []
        self.start("lethe-coordinator", "--listen", self.address, "--http", "off", "--data", str(folder / "data"))
        self.workers = [self.worker(place) for place in range(3)]
        until("three workers join", lambda: len(self.lethe("worker", "list") or []) == 3)

    def start(self, program: str, *arguments: str) -> subprocess.Popen:
        log = open(self.folder / "log", "ab")  # noqa: SIM115, the process keeps it
        process = subprocess.Popen([BIN / program, *arguments], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def worker(self, place: int) -> subprocess.Popen:
        settings = ["--id", f"w{place}", "--devices", "cpu", "--slots", "1", "--threads", "1"]
        return self.start("lethe-worker", "--coordinator", self.address, *settings)

    def lethe(self, *arguments: str):
        command = [BIN / "lethe", *arguments, "--coordinator", self.address, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout else None

    def step(self, job: str) -> int:
        status = self.lethe("job", "get", job)
        if status is None or status["state"] not in ("queued", "running"):
            raise SystemExit(f"the job does not run: {status}")
        return next(phase["done"] for phase in status["phases"] if phase["phase"] == "fine_tune")

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=60)


def children(pid: int) -> list[int]:
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def lethe_recovery(folder: pathlib.Path, models: dict) -> dict[str, list[float]]:
    architecture = MODELS["mnist-dcgan"]["architecture"]
    spec = {
        "name": "recovery",
        "generator": {
            "uri": str(models["generator"]),
            "format": "safetensors",
            "latent": {"dimension": architecture["latent"]},
            "output": {"range": [-1, 1], "channels": 1, "size": models["size"]},
        },
        "feature": {"name": "bright", "scorer": {"uri": str(models["scorer"]), "positive": {"top": 0.16}}},
        "sample": {"shard_size": 200, "batch": 100, "until": {"total": 400}},
        "direction": {"selection": "projection", "threshold": {"quantile": 0.5}},
        "pool": {"latents": 1000},
        "unlearn": {"steps": 1_000_000, "global_batch": 48, "lr": COMMON["lr"], "lr_schedule": "constant"},
        "evaluate": {"samples": 100},
        "resources": {"slots": {"min": 2, "max": 3}, "device": "cpu", "threads": 1},
        "checkpoint": {"every": 10},
    }
    file = folder / "job.json"
    file.write_text(json.dumps(spec))
    fleet = Fleet(folder)
    times: dict[str, list[float]] = {"rank": [], "machine": []}
    try:
        submitted = subprocess.run(
            [BIN / "lethe", "job", "submit", file, "--coordinator", fleet.address], capture_output=True, text=True, check=True
        )
        job = submitted.stdout.strip()
        until("training begins", lambda: fleet.step(job) > 10)
        for kind, count in (("rank", KILLS), ("machine", KILLS // 2)):
            for kill in range(count):
                until("three ranks train", lambda: fleet.lethe("job", "get", job)["slots"] == 3)
                begin = fleet.step(job)
                until("training goes on", lambda b=begin: fleet.step(job) > b + 5)
                place = kill % 3
                victim = fleet.workers[place].pid
                begin, since = fleet.step(job), time.time()
                time.sleep(3)
                before = fleet.step(job)
                rate = (before - begin) / (time.time() - since)
                began = time.time()
                if kind == "rank":
                    os.kill(children(victim)[0], signal.SIGKILL)
                else:
                    os.kill(victim, signal.SIGKILL)
                # What is reported is up to a second old: a step beyond all that can have been done before the kill.
                until("the next step", lambda b=before + math.ceil(1.5 * rate): fleet.step(job) > b)
                times[kind].append(time.time() - began)
                if kind == "machine":
                    fleet.workers[place].wait()
                    fleet.workers[place] = fleet.worker(place)
        fleet.lethe("job", "cancel", job)
    finally:
        fleet.stop()
    return times


GIVEN_UP = 60.0
# After so many that did not come back the picture is clear.
STUCK = 3


def torchrun_recovery(folder: pathlib.Path, models: dict) -> list[float]:
    """Seconds of each recovery; one that takes longer than GIVEN_UP counts as that, and torchrun is started again."""
    times: list[float] = []
    stuck = 0
    while len(times) < KILLS and stuck < STUCK:
        for name in ("steps", "checkpoint.pt"):
            (folder / name).unlink(missing_ok=True)
        times += torchrun_until_stuck(folder, models, KILLS - len(times))
        stuck += times[-1] >= GIVEN_UP
    return times


def torchrun_until_stuck(folder: pathlib.Path, models: dict, kills: int) -> list[float]:
    settings = {**COMMON, **MODELS["mnist-dcgan"], "weights": str(models["generator"]), "folder": str(folder), "every": 10}
    settings.update({"global_batch": 48, "steps": 1_000_000})
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    steps = folder / "steps"
    command = [PYTHON.with_name("torchrun"), "--standalone", "--nproc-per-node=3", "--max-restarts=100", HERE / "ddp.py", file]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    log = open(folder / "log", "wb")  # noqa: SIM115, the process keeps it
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    times = []
    try:
        lines = lambda: steps.read_text().splitlines() if steps.exists() else []  # noqa: E731
        until("training begins", lambda: len(lines()) > 20)
        for kill in range(kills):
            count = len(lines())
            until("training goes on", lambda c=count: len(lines()) > c + 20)
            began = time.time()
            os.kill(int((folder / f"pid-{kill % 3}").read_text()), signal.SIGKILL)
            last = int(lines()[-1].split()[0])

            def next_step(began=began, last=last):
                later = [line.split() for line in lines()[-40:]]
                found = [float(at) for step, at in later if int(step) > last and float(at) > began + 0.2]
                return found[0] if found else None

            deadline = began + GIVEN_UP
            while (found := next_step()) is None and time.time() < deadline:
                time.sleep(0.01)
            times.append(min(found or deadline, deadline) - began)
            if found is None:
                break
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return times


def torchft_recovery(folder: pathlib.Path, models: dict) -> list[float]:
    """Seconds of each recovery of three replicas; the one that is killed is started again at once."""
    settings = {**COMMON, **MODELS["mnist-dcgan"], "weights": str(models["generator"]), "folder": str(folder), "global_batch": 48}
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    port = free_port()
    log = open(folder / "log", "wb")  # noqa: SIM115, the processes keep it
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCHFT_LIGHTHOUSE": f"http://127.0.0.1:{port}"}
    lighthouse = [PYTHON.with_name("torchft_lighthouse"), "--bind", f"127.0.0.1:{port}", "--min_replicas", "2"]
    lighthouse += ["--quorum_tick_ms", "100", "--join_timeout_ms", "1000"]
    start = lambda command: subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: E731
    replica = lambda number: start([PYTHON, HERE / "replica.py", file, str(number)])  # noqa: E731
    processes = [start(lighthouse)]

    def steps(number: int) -> list[list[str]]:
        path = folder / f"steps-{number}"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split() for line in lines if line.count(" ") == 2]

    times = []
    try:
        replicas = [replica(number) for number in range(3)]
        for kill in range(KILLS):
            since = time.time()
            whole = lambda s=since: all(n and n[-1][1] == "3" and float(n[-1][2]) > s for n in map(steps, range(3)))  # noqa: E731
            until("three replicas train", whole)
            victim = kill % 3
            others = [number for number in range(3) if number != victim]
            began = time.time()
            replicas[victim].kill()
            last = max(int(steps(number)[-1][0]) for number in range(3))
            replicas[victim].wait()
            replicas[victim] = replica(victim)
            later = lambda b=began, l=last: [  # noqa: E731
                float(at) for number in others for step, _, at in steps(number)[-40:] if int(step) > l and float(at) > b
            ]
            deadline = began + GIVEN_UP
            while not (found := later()) and time.time() < deadline:
                time.sleep(0.01)
            times.append(min(found, default=deadline) - began)
            if not found:
                break
        processes += replicas
    finally:
        for process in {*processes, *replicas}:
            process.kill()
            process.wait()
    return times


def recovery() -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        models = write_models(folder, MODELS["mnist-dcgan"]["architecture"])
        (folder / "lethe").mkdir()
        (folder / "torchrun").mkdir()
        (folder / "torchft").mkdir()
        ours = lethe_recovery(folder / "lethe", models)
        others = torchft_recovery(folder / "torchft", models)
        theirs = torchrun_recovery(folder / "torchrun", models)
    say(
        {
            "benchmark": "recovery",
            "recovery_seconds_median": rounded(statistics.median(ours["rank"])),
            "recovery_seconds": [rounded(value) for value in ours["rank"]],
            "machine_recovery_seconds_median": rounded(statistics.median(ours["machine"])),
            "machine_recovery_seconds": [rounded(value) for value in ours["machine"]],
            "torchrun_recovery_seconds_median": rounded(statistics.median(theirs)),
            "torchrun_recovery_seconds": [rounded(value) for value in theirs],
            "torchft_recovery_seconds_median": rounded(statistics.median(others)),
            "torchft_recovery_seconds": [rounded(value) for value in others],
            "compared": "seconds from kill -9 of one of 3 ranks to a step beyond all that were done before, MNIST DCGAN, batch 48, a "
            "checkpoint every 10 steps. Lethe: as a client sees it (progress arrives once a second), a rank's process, then a "
            "whole worker; torchrun: --max-restarts, from the steps rank 0 writes down, at most 60 s "
            "each (it does not always come back: its new processes fail to meet, and it hangs; after three of those it is left). torchft: "
            "three replicas, from the steps they commit; it steps without the lost one while that comes back.",
        }
    )


# ---- fail-over, checkpoints -----------------------------------------------------------------------------------------


def run_json(program: str, *arguments: str) -> dict | None:
    done = subprocess.run([BIN / program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{program} failed ({done.returncode}):\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None


def failover() -> None:
    line = run_json("lethe-bench-failover")
    if line is not None:
        say(line)


def checkpoint() -> None:
    line = run_json("lethe-executor", "--threads", "1", "bench-checkpoint")
    if line is not None:
        say(line)


ALL = {"leases": leases, "scale": scale, "recovery": recovery, "failover": failover, "checkpoint": checkpoint}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ALL, action="append")
    for name in parser.parse_args().only or ALL:
        ALL[name]()


if __name__ == "__main__":
    main()
