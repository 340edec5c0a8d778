"""Reads the manifests: the base as it stands, an overlay as kustomize merges it.

The merge is the part of kustomize's strategic merge that our overlays use; test_manifests compares it with the real
one where kubectl is installed.
"""

from copy import deepcopy
from pathlib import Path

import yaml

KUSTOMIZE = Path(__file__).parent.parent / "kustomize"
BASE = KUSTOMIZE / "base"
OVERLAYS = sorted(path.parent for path in (KUSTOMIZE / "overlays").glob("*/kustomization.yaml"))

# Lists that are merged entry by entry, and by which key; any other list is replaced.
MERGE_KEYS = {
    "containers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
}


def kustomization(folder: Path) -> dict:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def documents(path: Path) -> list[dict]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def base() -> list[dict]:
    settings = kustomization(BASE)
    objects = [document for name in settings["resources"] for document in documents(BASE / name)]
    return tag(objects, settings)


def overlay(folder: Path) -> list[dict]:
    settings = kustomization(folder)
    assert settings["resources"] == ["../../base"]
    objects = base()
    for patch in settings.get("patches", []):
        for document in documents(folder / patch["path"]):
            (target,) = [place for place, found in enumerate(objects) if identity(found) == identity(document)]
            objects[target] = merge(objects[target], document)
    return tag(objects, settings)


def identity(document: dict) -> tuple:
    metadata = document["metadata"]
    return (document["apiVersion"], document["kind"], metadata.get("namespace"), metadata["name"])


def merge(old, patch, key=None):
    if isinstance(old, dict) and isinstance(patch, dict):
        merged = deepcopy(old)
        for name, value in patch.items():
            merged[name] = merge(old[name], value, name) if name in old else deepcopy(value)
        return merged
    if isinstance(old, list) and isinstance(patch, list) and key in MERGE_KEYS:
        by = MERGE_KEYS[key]
        merged = [deepcopy(entry) for entry in old]
        for entry in patch:
            places = [place for place, found in enumerate(merged) if found[by] == entry[by]]
            if places:
                merged[places[0]] = merge(merged[places[0]], entry)
            else:
                merged.append(deepcopy(entry))
        return merged
    return deepcopy(patch)


def tag(objects: list[dict], settings: dict) -> list[dict]:
    tags = {image["name"]: image["newTag"] for image in settings.get("images", [])}
    for _, container in containers(objects):
        name = container["image"].split(":")[0]
        if name in tags:
            container["image"] = f"{name}:{tags[name]}"
    return objects


def of_kind(objects: list[dict], *kinds: str) -> list[dict]:
    return [document for document in objects if document["kind"] in kinds]


def workloads(objects: list[dict]) -> list[dict]:
    return of_kind(objects, "StatefulSet", "Deployment", "DaemonSet", "Job")


def containers(objects: list[dict]):
    for workload in workloads(objects):
        pod = workload["spec"]["template"]["spec"]
        for container in pod.get("initContainers", []) + pod["containers"]:
            yield workload, container
