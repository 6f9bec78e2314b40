"""Strict validation: KubeRay's kinds against their custom resource definitions, Kubernetes' own against its published schemas.

Strict means that a field a schema does not know is a problem, as with `kubectl apply --validate=strict`. CEL rules
(`x-kubernetes-validations`) are not evaluated.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.k8s.kustomize import ROOT, Manifest

CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared/kubernetes/crds"))
KUBERNETES = "1.32"

needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(),
    reason=f"KubeRay's custom resource definitions are not in {CRDS} (KUBERAY_CRDS names another folder)",
)


def problems(manifest: Manifest) -> list[str]:
    """What is wrong with a manifest; empty for one that an API server would take."""
    if not manifest["apiVersion"].startswith("ray.io/"):
        return _core_problems(manifest)
    found = [
        f"{error.json_path}: {error.message}" for error in _custom_validator(manifest["kind"]).iter_errors(manifest)
    ]
    # a definition leaves metadata to the API server, and pod templates to the operator
    found += _core_problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]})
    for template in pod_templates(manifest):
        found += _core_problems({"apiVersion": "v1", "kind": "PodTemplate", "template": template})
    return found


def pod_templates(node: Any) -> list[dict[str, Any]]:
    """Every pod template within a manifest."""
    if isinstance(node, list):
        return [template for item in node for template in pod_templates(item)]
    if not isinstance(node, dict):
        return []
    here = [node["template"]] if isinstance(node.get("template"), dict) else []
    return here + [template for value in node.values() for template in pod_templates(value)]


def _core_problems(manifest: Manifest) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        return [f"{error.json_path}: {error.message}"]
    return []


@cache
def _custom_validator(kind: str) -> jsonschema.Draft202012Validator:
    definition = yaml.load((CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(), yaml.CSafeLoader)
    (version,) = (each for each in definition["spec"]["versions"] if each["storage"])
    return jsonschema.Draft202012Validator(_strict(version["schema"]["openAPIV3Schema"]))


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema of Kubernetes as a JSON schema under which unknown fields fail."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": schema.get("pattern", "")}]}
    made = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
    if "properties" in schema:
        made["properties"] = {name: _strict(each) for name, each in schema["properties"].items()}
    if "items" in schema:
        made["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(schema["additionalProperties"])
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if schema.get("nullable") and "type" in schema:
        made["type"] = [schema["type"], "null"]
    return made
