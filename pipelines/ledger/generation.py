"""A generation of a run's spec: what rows were computed with. The one that the run was planned
with is the number 0, and further ones are those that dead letters were retried with (`millrace
retry --set`), where that can show in a result.
"""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Self, get_args

import orjson

from models.checkpoint.url_secrets import public_url
from pipelines.formats.json_values import dump_json
from pipelines.job import Job, OutputFormat
from pipelines.ledger.json_fields import Fields

_PACKAGES = ("millrace", "torch", "ray", "pyarrow", "tokenizers", "safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecGeneration:
    """One after the first: the job as JSON values without storage options, its fingerprint, the
    versions of what computes, and what the task was told before all rows, None if that is nothing,
    or what the run was told."""

    spec: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    trial: tuple[float, ...] | None = None

    @classmethod
    def of(cls, job: Job, fingerprint: Mapping[str, Any], trial: tuple[float, ...] | None = None) -> Self:
        return cls(spec=spec_of(job), fingerprint=fingerprint, versions=versions(), trial=trial)

    def to_json(self) -> dict[str, Any]:
        values = {"spec": self.spec, "fingerprint": self.fingerprint, "versions": self.versions}
        return values if self.trial is None else values | {"trial": self.trial}

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        """Raises:
        ValueError: the object is no generation.
        """
        check_spec(fields.object("spec"))
        fields.object("versions").text("millrace")
        return cls(
            spec=fields.object("spec").values,
            fingerprint=fields.object("fingerprint").values,
            versions=fields.object("versions").values,
            trial=trial_in(fields),
        )


def spec_of(job: Job) -> dict[str, Any]:
    """A job as JSON values, without storage options."""
    fields = asdict(job)
    fields["task"] = job.task.recorded()
    for place in ("model", "input", "output"):
        del fields[place]["storage_options"]
    fields["input"]["paths"] = [public_url(path) for path in job.input.paths]
    for step in fields["cascade"]:
        del step["model"]["storage_options"]
    for place in (fields, *fields["cascade"]):
        del place["model"]["version"]  # nobody's wish: it is in the fingerprint
    for name in ("cascade", "parts"):
        if not fields[name]:
            del fields[name]
    truth = fields.pop("truth")
    if truth is not None:
        fields["report"] = {"truth": truth}
    spec: dict[str, Any] = orjson.loads(dump_json(fields))
    return spec


def versions() -> dict[str, str]:
    """The versions of what computes."""
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def check_spec(spec: Fields) -> None:
    """What reports and checks read of the spec.

    Raises:
        ValueError: it is not there, or of another type.
    """
    spec.object("output").choice("format", get_args(OutputFormat))
    spec.object("output").text("prefix")
    spec.object("task").text("kind")
    for name in ("path", "dtype"):
        spec.object("model").text(name)
    given = spec.object("input")
    if not given.is_null("schema"):
        given.object("schema")
    if not given.is_null("columns"):
        given.texts("columns")
    if "cascade" in spec.values:
        for step in spec.objects("cascade"):
            step.object("model").text("path")
            step.number("below")
    if "parts" in spec.values:
        spec.texts("parts")
    if "report" in spec.values:
        report = spec.object("report")
        if isinstance(report.values.get("truth"), Mapping):
            truth = report.object("truth")
            for name in truth.values:
                truth.text(name)
        else:
            report.text("truth")


def trial_in(fields: Fields) -> tuple[float, ...] | None:
    """What a task was told before all rows, None if that is nothing."""
    return fields.numbers("trial") if "trial" in fields.values else None
