"""Every object has its namespace, and what a pod names is in the pod's own: Kubernetes looks nowhere else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.kustomize import BASE, FOLDERS, OVERLAYS, Manifest, build, build_here
from tests.k8s.schemas import pod_templates

CLUSTER_SCOPED = {"Namespace"}
"""Of the kinds that are used. Another one is taken for namespaced until it is named here."""

MADE_BY_HAND = {"millrace-ray-token", "millrace-api-keys", "millrace-storage"}
"""Secrets that docs/operations.md has made in the namespace millrace."""


def namespace_of(manifest: Manifest) -> str:
    return str(manifest["metadata"].get("namespace", "default"))


def named_by(node: Any) -> Iterator[tuple[str, str]]:
    """Kind and name of each object that is named at any depth of a spec."""
    if isinstance(node, list):
        for item in node:
            yield from named_by(item)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        match key, value:
            case "claimName", str():
                yield "PersistentVolumeClaim", value
            case (("configMap" | "configMapRef" | "configMapKeyRef"), {"name": str(name)}):
                yield "ConfigMap", name
            case (("secretRef" | "secretKeyRef"), {"name": str(name)}):
                yield "Secret", name
            case "secretName", str():
                yield "Secret", value
            case "serviceAccountName", str():
                yield "ServiceAccount", value
            case "roleRef", {"kind": "Role", "name": str(name)}:
                yield "Role", name
        yield from named_by(value)


def problems(manifests: list[Manifest]) -> list[str]:
    (namespace,) = (each["metadata"]["name"] for each in manifests if each["kind"] == "Namespace")
    there = {(each["kind"], namespace_of(each), each["metadata"]["name"]) for each in manifests}
    there |= {("Secret", "millrace", name) for name in MADE_BY_HAND}
    found = []
    for manifest in manifests:
        own, who = namespace_of(manifest), f"{manifest['kind']} {manifest['metadata']['name']}"
        if manifest["kind"] in CLUSTER_SCOPED:
            continue
        if own != namespace:
            found.append(f"{who} is in {own}, not in {namespace}")
        for kind, name in named_by(manifest):
            if (kind, own, name) not in there:
                found.append(f"{who} names the {kind} {name}, which is not in {own}")
        for subject in manifest.get("subjects", []):
            if subject["namespace"] != own:
                found.append(f"{who} is for an account in {subject['namespace']}")
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_object_is_in_the_namespace_and_finds_there_what_it_names(folder: Path) -> None:
    assert problems(build(folder)) == []


def test_every_folder_with_a_kustomization_is_looked_at() -> None:
    found = {path.parent for path in BASE.parent.rglob("kustomization.yaml")}
    assert found == set(FOLDERS)


def test_pods_name_objects_of_every_kind() -> None:
    """Else nothing would be looked up above."""
    manifests = build(OVERLAYS / "local")
    in_pods = {kind for each in manifests for template in pod_templates(each) for kind, _ in named_by(template)}
    assert in_pods == {"PersistentVolumeClaim", "ConfigMap", "Secret", "ServiceAccount"}


@pytest.mark.parametrize("namespace", [None, "elsewhere"])
def test_a_claim_in_another_namespace_is_noticed(tmp_path: Path, namespace: str | None) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {}}
    if namespace is not None:
        claim["metadata"] = {"name": "c", "namespace": namespace}
    pod = {"containers": [], "volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}
    user = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "j", "namespace": "n"}, "spec": pod}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([claim, user, space]))
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["all.yaml"]}))
    assert problems(build_here(tmp_path)) == [
        f"PersistentVolumeClaim c is in {namespace or 'default'}, not in n",
        "CronJob j names the PersistentVolumeClaim c, which is not in n",
    ]
