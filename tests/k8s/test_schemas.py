"""Every built manifest is valid, strictly; and the check would notice if it were not."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.kustomize import BASE, FOLDERS, Manifest, build
from tests.k8s.schemas import needs_crds, pod_templates, problems


def find(manifests: list[Manifest], kind: str) -> Manifest:
    return copy.deepcopy(next(each for each in manifests if each["kind"] == kind))


def is_custom(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith("ray.io/"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kubernetes_own_kinds_are_valid(folder: Path) -> None:
    checked = [each for each in build(folder) if not is_custom(each)]
    assert {"Namespace", "ServiceAccount", "NetworkPolicy", "ConfigMap"} <= {each["kind"] for each in checked}
    assert [problem for each in checked for problem in problems(each)] == []


@needs_crds
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kuberay_kinds_are_valid(folder: Path) -> None:
    checked = [each for each in build(folder) if is_custom(each)]
    assert "RayJob" in {each["kind"] for each in checked}
    assert [problem for each in checked for problem in problems(each)] == []


def test_a_misspelt_field_of_a_kubernetes_kind_is_found() -> None:
    schedule = find(build(BASE), "CronJob")
    schedule["spec"]["concurencyPolicy"] = "Forbid"
    assert "'concurencyPolicy' was unexpected" in str(problems(schedule))


@needs_crds
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "rayClusterConfg"], {}),
        (["spec", "rayClusterConfig", "authOptions", "secret"], "name"),
        (["spec", "rayClusterConfig", "authOptions", "mode"], "tokens"),
        (["spec", "rayClusterConfig", "workerGroupSpecs", 0, "replicas"], "2"),
        (["spec", "rayClusterConfig", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (
            ["spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "containers", 0, "imagePulPolicy"],
            "Always",
        ),
        (
            [
                "spec",
                "rayClusterConfig",
                "headGroupSpec",
                "template",
                "spec",
                "containers",
                0,
                "resources",
                "limits",
                "cpu",
            ],
            "two",
        ),
        (["spec", "rayClusterConfig", "headGroupSpec", "template", "metadata", "lables"], {}),
        (["metadata", "lables"], {}),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_wrong_field_of_a_kuberay_kind_is_found(path: list[str | int], value: object) -> None:
    service = find(build(BASE), "RayService")
    assert problems(service) == []
    *parents, last = path
    place: Any = service
    for part in parents:
        place = place[part]
    place[last] = value
    assert problems(service) != []


@needs_crds
def test_what_a_definition_requires_is_required() -> None:
    service = find(build(BASE), "RayService")
    del service["spec"]["rayClusterConfig"]
    assert "is a required property" in str(problems(service))


def test_every_pod_template_is_found() -> None:
    assert len(pod_templates(find(build(BASE), "RayService"))) == 2
    assert len(pod_templates(find(build(BASE), "CronJob"))) == 1
