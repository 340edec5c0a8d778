"""The manifests against Kubernetes' schemas, against each other, and against the real binaries.

What no test without a cluster can show: admission, scheduling, the GPU device plugin, a real shared volume.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import kubernetes_validate
import pytest
import yaml

import manifests
from checkout import binary

# The oldest Kubernetes we support, and the newest whose schemas the checker has.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]

VARIANTS = {"base": manifests.base()} | {folder.name: manifests.overlay(folder) for folder in manifests.OVERLAYS}
EVERY = pytest.mark.parametrize("objects", VARIANTS.values(), ids=VARIANTS.keys())


def name(document):
    return f"{document['kind']}/{document['metadata']['name']}"


@EVERY
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_expects(objects, version):
    for document in objects:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_checker_notices_a_misspelt_key(version):
    (document,) = manifests.of_kind(manifests.base(), "PersistentVolumeClaim")
    document["spec"]["accessMode"] = document["spec"].pop("accessModes")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("folder", [manifests.BASE, *manifests.OVERLAYS], ids=lambda folder: folder.name)
def test_kustomization_lists_every_file(folder):
    settings = manifests.kustomization(folder)
    listed = {path for path in settings["resources"] if not path.startswith("..")}
    listed |= {patch["path"] for patch in settings.get("patches", [])}
    present = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert listed == present


@pytest.mark.parametrize("folder", [manifests.BASE, *manifests.OVERLAYS], ids=lambda folder: folder.name)
def test_kustomize_makes_of_it_what_these_tests_see(folder):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: overlays are checked as merged by the tests themselves")
    rendered = subprocess.run(["kubectl", "kustomize", folder], check=True, capture_output=True, text=True).stdout

    def sets(document):
        # kustomize puts the entries a patch adds first; their order means nothing.
        if isinstance(document, dict):
            return {key: sets(value) for key, value in document.items()}
        if isinstance(document, list):
            return sorted((sets(entry) for entry in document), key=lambda entry: json.dumps(entry, sort_keys=True))
        return document

    def by_identity(objects):
        return {manifests.identity(document): sets(document) for document in objects}

    assert by_identity(yaml.safe_load_all(rendered)) == by_identity(VARIANTS[folder.name])


@EVERY
def test_everything_is_in_the_namespace_and_labelled(objects):
    (namespace,) = manifests.of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for document in objects:
        if document is not namespace:
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"], name(document)
        labels = document["metadata"]["labels"]
        for label in ("name", "part-of", "managed-by"):
            assert f"app.kubernetes.io/{label}" in labels, name(document)


def selects(selector, labels):
    return selector.items() <= labels.items()


@EVERY
def test_selectors_match_exactly_their_own_pods(objects):
    workloads = {name(workload): workload for workload in manifests.workloads(objects)}
    pods = {own: workload["spec"]["template"]["metadata"]["labels"] for own, workload in workloads.items()}
    for own, workload in workloads.items():
        selector = workload["spec"]["selector"]["matchLabels"]
        assert [pod for pod, labels in pods.items() if selects(selector, labels)] == [own]
        for constraint in workload["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert constraint["labelSelector"]["matchLabels"] == selector
    for service in manifests.of_kind(objects, "Service"):
        found = [pod for pod, labels in pods.items() if selects(service["spec"]["selector"], labels)]
        assert len(found) == 1, f"{name(service)} selects {found}"
        served = workloads[found[0]]["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for container in served for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports, f"{name(service)} leads to port {port['targetPort']} of {found[0]}"


@EVERY
def test_stateful_sets_name_a_headless_service_and_probes_name_ports(objects):
    services = {service["metadata"]["name"]: service for service in manifests.of_kind(objects, "Service")}
    for workload in manifests.of_kind(objects, "StatefulSet"):
        assert services[workload["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    for workload, container in manifests.containers(objects):
        ports = {port["name"] for port in container["ports"]}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            assert container[probe]["httpGet"]["port"] in ports, f"{name(workload)} {probe}"
        assert "requests" in container["resources"] and "memory" in container["resources"]["limits"]


@EVERY
def test_volumes_and_claims_resolve(objects):
    claims = {claim["metadata"]["name"] for claim in manifests.of_kind(objects, "PersistentVolumeClaim")}
    for workload in manifests.workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert claim is None or claim in claims, f"{name(workload)} claims {claim}"
        own = {template["metadata"]["name"] for template in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == volumes | own, name(workload)


@EVERY
def test_coordinator_and_workers_see_the_same_storage_at_the_same_path(objects):
    paths = {
        (mount["mountPath"], mount["name"])
        for _, container in manifests.containers(objects)
        for mount in container["volumeMounts"]
        if mount["name"] == "storage"
    }
    assert len(paths) == 1
    (storage,) = manifests.of_kind(objects, "PersistentVolumeClaim")
    assert storage["spec"]["accessModes"] == ["ReadWriteMany"]
    (artifacts,) = [
        argument.partition("=")[2]
        for _, container in manifests.containers(objects)
        for argument in container["args"]
        if argument.startswith("--artifacts=")
    ]
    assert artifacts.startswith(f"file://{paths.pop()[0]}/")


# https://kubernetes.io/docs/concepts/security/pod-security-standards/, the restricted profile.
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


@EVERY
def test_pods_meet_the_restricted_standard(objects):
    for workload in manifests.workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        assert not any(pod.get(host) for host in ("hostNetwork", "hostPID", "hostIPC")), name(workload)
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
        assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= RESTRICTED_VOLUMES, volume
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    for workload, container in manifests.containers(objects):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name(workload)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert not security.get("privileged") and security.get("runAsUser", 1) > 0
        assert all("hostPort" not in port for port in container["ports"])


@EVERY
def test_images_have_a_tag_that_is_this_version(objects):
    cargo = (manifests.KUSTOMIZE.parent.parent / "Cargo.toml").read_text()
    version = re.search(r'^version = "(.+)"', cargo, re.MULTILINE)[1]
    for _, container in manifests.containers(objects):
        assert re.fullmatch(rf"lethe-(coordinator|worker):{re.escape(version)}(-cuda)?", container["image"])


def test_the_gpu_overlay_asks_for_a_gpu_and_shared_memory():
    (worker,) = [
        workload for workload in manifests.workloads(VARIANTS["gpu"]) if workload["metadata"]["name"] == "lethe-worker"
    ]
    pod = worker["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    shared = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}["/dev/shm"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == shared]
    assert volume["emptyDir"]["medium"] == "Memory"
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert environment["LETHE_DEVICES"] == "cuda"
    assert "LETHE_GANG_HOST" in environment, "what the base says is kept"


# ---- manifests and the real binaries -------------------------------------------------------------------------------

# What the kubelet would put in place of a field's reference.
FIELDS = {"metadata.name": "lethe-worker-0", "status.podIP": "127.0.0.1"}


def container_of(objects, component):
    (found,) = [container for _, container in manifests.containers(objects) if container["name"] == component]
    return found


def environment_of(container):
    def value(entry):
        return entry["value"] if "value" in entry else FIELDS[entry["valueFrom"]["fieldRef"]["fieldPath"]]

    return {entry["name"]: value(entry) for entry in container.get("env", [])}


def arguments_of(container):
    environment = environment_of(container)
    return [re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], argument) for argument in container["args"]]


@EVERY
def test_the_coordinator_takes_its_arguments(objects):
    container = container_of(objects, "coordinator")
    command = [binary("lethe-coordinator"), *arguments_of(container), "--check-config"]
    run = subprocess.run(command, env=environment_of(container), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    misspelt = subprocess.run([*command, "--lissten=1"], env={}, capture_output=True, text=True)
    assert misspelt.returncode == 2, "the check notices a misspelt flag"


@pytest.mark.parametrize("component", ["coordinator", "worker"])
def test_the_binary_answers_the_probes_and_ends_in_good_order(component, tmp_path):
    container = container_of(VARIANTS["base"], component)
    program = binary(f"lethe-{component}")
    if component == "worker":
        binary("lethe-executor")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    free = {name: free_port() for name in ports}

    def here(argument):
        """The same argument with ports and folders of this machine."""
        for name, port in ports.items():
            argument = argument.replace(f"0.0.0.0:{port}", f"127.0.0.1:{free[name]}")
        return argument.replace("/var/lib/lethe", str(tmp_path)).replace("lethe-coordinator:7400", "127.0.0.1:1")

    arguments = [here(argument) for argument in arguments_of(container)]
    environment = {"PATH": os.environ["PATH"], "RUST_LOG": "info"} | environment_of(container)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, *arguments], env=environment, stdout=log, stderr=log)
    try:
        said = lambda: (tmp_path / "log").read_text()  # noqa: E731
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container[probe]["httpGet"]["path"]
            # A worker alone is alive and not ready: no coordinator has taken it.
            expected = 503 if (component, probe) == ("worker", "readinessProbe") else 200
            status = answer(free[container[probe]["httpGet"]["port"]], path, process, said)
            assert status == expected, f"{path}: {status}\n{said()}"
        process.send_signal(signal.SIGTERM)
        grace = 30
        assert process.wait(grace) == 0, said()
    finally:
        process.kill()
        process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answer(port, path, process, said, patience=60.0):
    """The status of the first answer; the process may still be starting."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        assert process.poll() is None, f"ended with {process.returncode}\n{said()}"
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"no answer from {path}\n{said()}")
