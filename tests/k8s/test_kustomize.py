"""The builder that stands in for kustomize gives what kustomize gives, and refuses what it does not know."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.kustomize import FOLDERS, Manifest, build_here, build_really, real_kustomize


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    named = {(each["kind"], each["metadata"]["name"]): each for each in manifests}
    assert len(named) == len(manifests)
    return named


@pytest.mark.skipif(real_kustomize() is None, reason="neither kustomize nor kubectl is on PATH")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_our_builder_gives_what_kustomize_gives(folder: Path) -> None:
    assert by_name(build_here(folder)) == by_name(build_really(folder))


@pytest.mark.parametrize(
    "unknown",
    [
        {"namePrefix": "a-"},
        {"images": [{"name": "a", "digest": "sha256:0"}]},
        {"generatorOptions": {"disableNameSuffixHash": False}},
        {"configMapGenerator": [{"name": "a", "literals": ["a=b"]}]},
        {"configMapGenerator": [{"name": "a", "files": [], "behavior": "merge"}]},
        {"patches": [{"target": {"kind": "ConfigMap"}, "patch": "data: {a: c}"}]},
        {"patches": [{"target": {"kind": "Secret"}, "patch": "[]"}]},
        {"patches": [{"target": {"kind": "ConfigMap"}, "patch": "[{op: move, from: /data, path: /b}]"}]},
    ],
    ids=str,
)
def test_our_builder_refuses_what_it_does_not_know(tmp_path: Path, unknown: dict[str, Any]) -> None:
    (tmp_path / "map.yaml").write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: b}}")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["map.yaml"], **unknown}))
    with pytest.raises(ValueError, match=r"."):
        build_here(tmp_path)
