"""The manifests against the Kubernetes schemas, against each other, and against the real binaries."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

BASE = pathlib.Path(__file__).resolve().parents[1] / "kustomize" / "base"
ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
OBJECTS = [item for path in FILES for item in yaml.safe_load_all(path.read_text())]
WORKLOADS = [item for item in OBJECTS if item["kind"] in ("Deployment", "StatefulSet")]


def named(kind):
    return {item["metadata"]["name"]: item for item in OBJECTS if item["kind"] == kind}


def pod(workload):
    return workload["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.30", "1.36"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_strict_schema(path, version):
    tool = pathlib.Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([tool, "-k", version, "--strict", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kustomization_lists_every_file():
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in FILES]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda item: item["metadata"]["name"])
def test_selectors_ports_and_claims(workload):
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service = named("Service")[workload["spec"].get("serviceName", workload["metadata"]["name"])]
    assert service["spec"]["selector"].items() <= labels.items()
    container = pod(workload)["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for probe in ("livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod(workload)["volumes"] if "persistentVolumeClaim" in volume}
    assert claims <= set(named("PersistentVolumeClaim"))
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod(workload)["volumes"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda item: item["metadata"]["name"])
def test_restricted_pod_security(workload):
    spec = pod(workload)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_coordinator_takes_its_arguments():
    binary = pathlib.Path(os.environ.get("LETHE_BIN_DIR", ROOT / "target" / "release")) / "lethe-coordinator"
    if not binary.exists():
        pytest.skip(f"{binary} is not built")
    arguments = pod(named("Deployment")["lethe-coordinator"])["containers"][0]["args"]
    done = subprocess.run([binary, *arguments, "--check-config"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
