"""docs/operations.md speaks of things that exist."""

import re

from jobs.scheduled_run import scheduled_time
from tests.k8s.kustomize import FOLDERS, ROOT, build
from tests.k8s.test_policies import SECRETS

TEXT = (ROOT / "docs/operations.md").read_text()


def test_every_folder_is_described_and_every_path_exists() -> None:
    paths = set(re.findall(r"k8s/[\w/.-]*\w", TEXT))
    assert {str(folder.relative_to(ROOT)) for folder in FOLDERS} <= paths
    assert all((ROOT / path).exists() for path in paths if "*" not in path and path != "k8s/overlays/")


def test_every_secret_is_made() -> None:
    assert set(re.findall(r"create secret generic (\S+)", TEXT)) == SECRETS
    assert "--from-literal=auth_token=" in TEXT  # the key that KubeRay reads
    assert "--from-file=keys.txt" in TEXT


def test_the_examples_name_one_time() -> None:
    assert f"{scheduled_time('millrace-scheduled-29534520'):%Y%m%dt%H%Mz %Y-%m-%d %H:%M}" == (
        "20260226t0200z 2026-02-26 02:00"
    )
    assert {"millrace-scheduled-29534520", "millrace-job-20260226t0200z"} <= set(re.findall(r"millrace-[\w-]+", TEXT))


def test_objects_are_called_what_they_are_called() -> None:
    names = {(each["kind"], each["metadata"]["name"]) for folder in FOLDERS for each in build(folder)}
    assert {
        ("RayService", "millrace"),
        ("RayJob", "millrace-job"),
        ("CronJob", "millrace-scheduled"),
        ("RayCronJob", "millrace-scheduled"),
        ("NetworkPolicy", "ray-to-object-storage"),
        ("ServiceAccount", "millrace-ray"),
    } <= names
