"""What the manifests promise beyond their schemas: resources, privileges, secrets, network, names that must agree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.kustomize import BASE, FOLDERS, OVERLAYS, Manifest, build
from tests.k8s.schemas import pod_templates

SECRETS = {"millrace-ray-token", "millrace-api-keys", "millrace-storage"}
ROLES = {"ray-head": "head", "ray-worker": "worker"}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    folder: Path = request.param
    return build(folder)


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in manifests if each["kind"] == kind]


def pods(manifests: list[Manifest]) -> list[dict[str, Any]]:
    """Pod templates, those of Ray with the labels that KubeRay will give them."""
    found = []
    for manifest in manifests:
        for template in pod_templates(manifest):
            role = ROLES.get(template["spec"]["containers"][0]["name"])
            labels = {**template["metadata"]["labels"], **({"ray.io/node-type": role} if role else {})}
            found.append({"labels": labels, "spec": template["spec"]})
    return found


def containers(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return [
        container
        for pod in pods(manifests)
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    ]


def values(node: Any, key: str) -> Iterator[Any]:
    """Every value that stands under a key, at any depth."""
    if isinstance(node, list):
        for item in node:
            yield from values(item, key)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)


def test_every_container_is_guaranteed_what_it_may_use(manifests: list[Manifest]) -> None:
    for container in containers(manifests):
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_no_container_has_privileges(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"])
        assert not any("hostPath" in volume for volume in pod["spec"].get("volumes", []))
    for container in containers(manifests):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_what_ray_writes_lies_on_volumes(manifests: list[Manifest]) -> None:
    for pod in pods(manifests):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            assert set(mounts.values()) <= volumes
            if "ray.io/node-type" in pod["labels"]:
                assert {"/tmp", "/home/millrace"} <= set(mounts)


def test_no_secret_is_written_down(manifests: list[Manifest]) -> None:
    assert of_kind(manifests, "Secret") == []
    for container in containers(manifests):
        for variable in container.get("env", []):
            assert "value" not in variable or not re.search("TOKEN|KEY|SECRET|PASSWORD", variable["name"])


def test_every_secret_and_configmap_that_is_named_is_one_we_tell_of(manifests: list[Manifest]) -> None:
    references = [*values(manifests, "secretRef"), *values(manifests, "secretKeyRef")]
    assert {*values(manifests, "secretName"), *(each["name"] for each in references)} <= SECRETS
    maps = {each["metadata"]["name"] for each in of_kind(manifests, "ConfigMap")}
    assert {each["name"] for each in values(manifests, "configMap")} <= maps
    claims = {each["metadata"]["name"] for each in of_kind(manifests, "PersistentVolumeClaim")}
    assert set(values(manifests, "claimName")) <= claims


def test_every_ray_cluster_asks_for_the_token(manifests: list[Manifest]) -> None:
    clusters = [*values(manifests, "rayClusterSpec"), *values(manifests, "rayClusterConfig")]
    assert clusters
    for cluster in clusters:
        assert cluster["authOptions"] == {"mode": "token", "secretName": "millrace-ray-token"}


def test_ray_is_the_version_that_is_installed(manifests: list[Manifest]) -> None:
    import ray

    assert set(values(manifests, "rayVersion")) == {ray.__version__}


def test_images_have_a_version(manifests: list[Manifest]) -> None:
    for container in containers(manifests):
        name, _, tag = container["image"].rpartition(":")
        assert name
        assert re.fullmatch(r"\d+\.\d+\.\d+(-cuda)?", tag)


def test_every_account_exists_and_holds_a_token_only_to_schedule(manifests: list[Manifest]) -> None:
    accounts = {each["metadata"]["name"]: each for each in of_kind(manifests, "ServiceAccount")}
    assert {pod["spec"]["serviceAccountName"] for pod in pods(manifests)} == set(accounts)
    assert all(account["automountServiceAccountToken"] is False for account in accounts.values())
    for pod in pods(manifests):
        schedules = pod["spec"]["serviceAccountName"] == "millrace-scheduler"
        assert pod["spec"]["automountServiceAccountToken"] is schedules


def test_the_scheduler_may_read_its_template_and_create_rayjobs() -> None:
    manifests = build(BASE)
    (role,), (binding,) = of_kind(manifests, "Role"), of_kind(manifests, "RoleBinding")
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "resourceNames": ["millrace-job"], "verbs": ["get"]},
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create"]},
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "millrace-scheduler", "namespace": "millrace"}]
    assert of_kind(manifests, "ClusterRole") == of_kind(manifests, "ClusterRoleBinding") == []


def test_everything_is_denied_that_is_not_allowed(manifests: list[Manifest]) -> None:
    (deny,) = (each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["name"] == "default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_selector_matches_a_pod(manifests: list[Manifest]) -> None:
    for policy in of_kind(manifests, "NetworkPolicy"):
        own = [policy["spec"]["podSelector"]]
        peers = [
            peer["podSelector"]
            for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
            for peer in [*rule.get("from", []), *rule.get("to", [])]
            if "podSelector" in peer and "namespaceSelector" not in peer
        ]
        for selector in own + peers:
            assert any(matches(selector, pod["labels"]) for pod in pods(manifests)), policy["metadata"]["name"]
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        assert any(matches(budget["spec"]["selector"], pod["labels"]) for pod in pods(manifests))


def test_a_budget_leaves_workers_that_may_go() -> None:
    manifests = build(BASE)
    (service,) = of_kind(manifests, "RayService")
    budgets = {each["metadata"]["name"]: each["spec"] for each in of_kind(manifests, "PodDisruptionBudget")}
    workers = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"]
    assert 1 <= budgets["millrace-service-workers"]["minAvailable"] < workers


@pytest.mark.parametrize("port", [6379, 8265, 10001])
def test_rays_own_ports_are_open_from_inside_only(manifests: list[Manifest], port: int) -> None:
    for source, reached in ingress(manifests, port):
        if "namespaceSelector" in source:
            assert port == 8265
            assert source["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "ray-system"}}
            assert source["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "kuberay-operator"}
        else:
            inside = source["podSelector"]["matchLabels"]
            assert inside["app.kubernetes.io/component"] == reached["labels"]["app.kubernetes.io/component"]


def test_the_service_is_open_to_labelled_namespaces() -> None:
    outside = [source for source, _ in ingress(build(BASE), 8000) if "namespaceSelector" in source]
    assert outside
    assert all(source == {"namespaceSelector": {"matchLabels": {"millrace-client": "true"}}} for source in outside)


def test_nothing_reaches_the_scheduler() -> None:
    reached = [pod["labels"]["app.kubernetes.io/component"] for _, pod in ingress(build(BASE), 443)]
    assert "scheduler" not in reached


def test_a_node_s_metadata_service_is_out_of_reach(manifests: list[Manifest]) -> None:
    for block in values(of_kind(manifests, "NetworkPolicy"), "ipBlock"):
        assert block == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


def test_a_missed_schedule_is_made_up_for_once() -> None:
    (schedule,) = of_kind(build(BASE), "CronJob")
    assert schedule["spec"]["concurrencyPolicy"] == "Forbid"
    assert schedule["spec"]["timeZone"]
    assert schedule["spec"]["startingDeadlineSeconds"] > 0


@pytest.mark.parametrize(
    ("folder", "is_suspended"), [(BASE, True), (OVERLAYS / "scheduled", False)], ids=["base", "scheduled"]
)
def test_the_schedule_is_on_in_its_overlay_alone(folder: Path, is_suspended: bool) -> None:
    manifests = build(folder)
    (schedule,), (template,) = of_kind(manifests, "CronJob"), of_kind(manifests, "RayJob")
    assert schedule["spec"]["suspend"] is is_suspended
    assert template["spec"]["suspend"] is True
    assert template["spec"]["shutdownAfterJobFinishes"] is True  # KubeRay refuses suspension without it


def test_gpus_are_asked_for_by_workers_alone() -> None:
    for pod in pods(build(OVERLAYS / "gpu")):
        is_worker = pod["labels"].get("ray.io/node-type") == "worker"
        assert ("nvidia.com/gpu" in pod["spec"]["containers"][0]["resources"]["limits"]) is is_worker
        assert ("tolerations" in pod["spec"]) is is_worker


def ingress(manifests: list[Manifest], port: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Who may reach which pod on a port: (peer, pod)."""
    for policy in of_kind(manifests, "NetworkPolicy"):
        for pod in pods(manifests):
            if not matches(policy["spec"]["podSelector"], pod["labels"]):
                continue
            for rule in policy["spec"].get("ingress", []):
                assert rule.get("from"), "a rule without `from` lets everybody in"
                if port in {each["port"] for each in rule.get("ports", [{"port": port}])}:
                    yield from ((peer, pod) for peer in rule["from"])


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if set(selector) - {"matchLabels", "matchExpressions"}:
        raise ValueError(f"not known here: {selector}")
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
