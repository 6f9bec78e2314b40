"""What `kubectl apply -k` would send: built by the kustomize of this machine, or by a small one of ours where there is none.

Ours does what the manifests under `k8s/` use, refuses what it does not know, and is tested against the real one wherever that exists.
"""

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s/base"
OVERLAYS = ROOT / "k8s/overlays"
FOLDERS = (BASE, *sorted(OVERLAYS.iterdir()), *sorted((ROOT / "k8s/options").iterdir()))


def build(folder: Path) -> list[Manifest]:
    """The manifests of a folder with a kustomization, in any order."""
    return copy.deepcopy(_built(folder))


@cache
def _built(folder: Path) -> list[Manifest]:
    return build_really(folder) if real_kustomize() else build_here(folder)


def real_kustomize() -> list[str] | None:
    """The command that builds a folder, or None."""
    if path := shutil.which("kustomize"):
        return [path, "build"]
    if path := shutil.which("kubectl"):
        return [path, "kustomize"]
    return None


def build_really(folder: Path) -> list[Manifest]:
    command = real_kustomize()
    assert command is not None
    built = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


# ---- ours --------------------------------------------------------------------------------------------------------------------------


def build_here(folder: Path) -> list[Manifest]:
    """The same without kustomize.

    Raises:
        ValueError: the kustomization uses something that this builder does not know.
    """
    wanted = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {
        *("apiVersion", "kind", "namespace", "resources", "configMapGenerator"),
        *("generatorOptions", "images", "patches", "replacements"),
    }
    _refuse_unknown(wanted, known, "kustomization")
    if wanted.get("generatorOptions", {"disableNameSuffixHash": True}) != {"disableNameSuffixHash": True}:
        raise ValueError(f"generatorOptions: {wanted['generatorOptions']}")
    manifests = [manifest for name in wanted["resources"] for manifest in _resource(folder / name)]
    for generator in wanted.get("configMapGenerator", []):
        _generate(folder, generator, manifests)
    for patch in wanted.get("patches", []):
        manifests = list(_patched(manifests, patch))
    for image in wanted.get("images", []):
        _refuse_unknown(image, {"name", "newName", "newTag"}, "images")
        _set_image(manifests, image)
    for replacement in wanted.get("replacements", []):
        _replace(manifests, replacement)
    if namespace := wanted.get("namespace"):
        _set_namespace(manifests, namespace)
    return manifests


def _refuse_unknown(mapping: dict[str, Any], known: set[str], where: str) -> None:
    if unknown := set(mapping) - known:
        raise ValueError(f"{where}: {sorted(unknown)} is not known here")


def _resource(path: Path) -> list[Manifest]:
    if path.is_dir():
        return build_here(path)
    # through JSON, so that what a YAML alias names twice is there twice
    return [json.loads(json.dumps(each)) for each in yaml.safe_load_all(path.read_text())]


def _generate(folder: Path, generator: dict[str, Any], manifests: list[Manifest]) -> None:
    _refuse_unknown(generator, {"name", "files", "behavior"}, "configMapGenerator")
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}}
    behavior = generator.get("behavior", "create")
    if behavior == "replace":
        (old,) = (each for each in manifests if each["kind"] == "ConfigMap" and _name(each) == generator["name"])
        made["metadata"] = old["metadata"]
        manifests.remove(old)
    elif behavior != "create":
        raise ValueError(f"configMapGenerator: behavior {behavior}")
    manifests.append({**made, "data": {name: (folder / name).read_text() for name in generator["files"]}})


def _patched(manifests: list[Manifest], patch: dict[str, Any]) -> Iterator[Manifest]:
    _refuse_unknown(patch, {"target", "patch"}, "patches")
    content = yaml.safe_load(patch["patch"])
    found = False
    for manifest in manifests:
        if not _is_target(manifest, patch["target"]):
            yield manifest
            continue
        found = True
        if isinstance(content, list):
            for operation in copy.deepcopy(content):
                _operate(manifest, operation)
            yield manifest
        elif content.get("$patch") != "delete":
            raise ValueError("patches: neither a list of JSON operations nor a $patch: delete")
    if not found:
        raise ValueError(f"patches: no manifest is {patch['target']}")


def _is_target(manifest: Manifest, target: dict[str, str]) -> bool:
    _refuse_unknown(target, {"kind", "name", "labelSelector"}, "target")
    key, _, value = target.get("labelSelector", "").partition("=")
    return (
        target.get("kind") in (None, manifest["kind"])
        and target.get("name") in (None, _name(manifest))
        and (not key or manifest["metadata"].get("labels", {}).get(key) == value)
    )


def _operate(manifest: Manifest, operation: dict[str, Any]) -> None:
    """One JSON patch operation (RFC 6902): add, replace or remove."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = manifest
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key: Any = int(last) if isinstance(place, list) and last != "-" else last
    match operation["op"]:
        case "add" if key == "-":
            place.append(operation["value"])
        case "add" if isinstance(place, dict):
            place[key] = operation["value"]
        case "replace" if isinstance(place, dict) and key in place:
            place[key] = operation["value"]
        case "remove":
            del place[key]
        case other:
            raise ValueError(f"patches: {other} at {operation['path']}")


def _set_image(node: Any, image: dict[str, str]) -> None:
    if isinstance(node, list):
        for item in node:
            _set_image(item, image)
    elif isinstance(node, dict):
        for container in [*node.get("containers", []), *node.get("initContainers", [])]:
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"
        for value in node.values():
            _set_image(value, image)


def _replace(manifests: list[Manifest], replacement: dict[str, Any]) -> None:
    _refuse_unknown(replacement, {"source", "targets"}, "replacements")
    source = dict(replacement["source"])
    path = source.pop("fieldPath").split(".")
    (value,) = (_at(manifest, path) for manifest in manifests if _is_target(manifest, source))
    for target in replacement["targets"]:
        _refuse_unknown(target, {"select", "fieldPaths", "options"}, "targets")
        for manifest in (each for each in manifests if _is_target(each, target["select"])):
            for field in target["fieldPaths"]:
                *parents, last = field.split(".")
                _at(manifest, parents)[last] = copy.deepcopy(value)


def _at(manifest: Manifest, path: list[str]) -> Any:
    place: Any = manifest
    for part in path:
        place = place[part]
    return place


def _set_namespace(manifests: list[Manifest], namespace: str) -> None:
    for manifest in manifests:
        if manifest["kind"] == "Namespace":
            manifest["metadata"]["name"] = namespace
        else:
            manifest["metadata"]["namespace"] = namespace
        for subject in manifest.get("subjects", []):
            subject["namespace"] = namespace


def _name(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["name"]
    return name
