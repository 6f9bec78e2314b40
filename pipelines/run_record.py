"""`run.json`: what a run is, written once its plan is complete. A folder without it has no plan, whatever else it holds.

    record = read_record(store)       # None before the plan is complete
    record.schema, record.num_units   # what workers and reports need

It holds the spec without storage options, the Arrow schema (for readers, and exactly), the fingerprint, the sizes of the plan and the
versions of what computes.
"""

import base64
import datetime as dt
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import orjson
import pyarrow as pa

from pipelines.errors import OutputError
from pipelines.job import Job
from pipelines.json_values import dump_json
from pipelines.listing import PassedOver
from pipelines.planning import Plan
from pipelines.store import Store

RUN = "run.json"
_PACKAGES = ("millrace", "torch", "ray", "pyarrow", "tokenizers", "safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The content of `run.json`. `spec` is the job as JSON values, without storage options; `date` is the one that chat templates
    take for today."""

    name: str
    spec: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    plan: Plan
    date: dt.date | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns that units are read with."""
        return self.plan.schema

    @classmethod
    def of(cls, job: Job, fingerprint: Mapping[str, Any], plan: Plan, date: dt.date | None = None) -> "RunRecord":
        versions = _versions()
        return cls(name=job.name, spec=_spec(job), fingerprint=fingerprint, versions=versions, plan=plan, date=date)

    def to_json(self) -> bytes:
        plan = self.plan
        return orjson.dumps(
            {
                "name": self.name,
                "spec": self.spec,
                "schema": {field.name: str(field.type) for field in plan.schema},
                "arrow_schema": base64.b64encode(plan.schema.serialize().to_pybytes()).decode(),
                "plan": {
                    "num_files": plan.num_files,
                    "num_units": plan.num_units,
                    "num_rows": plan.num_rows,
                    "num_bytes": plan.num_bytes,
                    "passed_over": asdict(plan.passed_over),
                },
                "date": self.date,
                "fingerprint": self.fingerprint,
                "versions": self.versions,
            },
            option=orjson.OPT_INDENT_2,
        )

    @classmethod
    def from_json(cls, content: bytes) -> "RunRecord":
        """Raises:
        ValueError: the content is no record of a run.
        """
        try:
            fields: dict[str, Any] = orjson.loads(content)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields["arrow_schema"])))
            return cls(
                name=fields["name"],
                spec=fields["spec"],
                fingerprint=fields["fingerprint"],
                versions=fields["versions"],
                plan=_plan(schema, fields["plan"]),
                date=None if fields.get("date") is None else dt.date.fromisoformat(fields["date"]),
            )
        except (TypeError, KeyError, AttributeError, pa.ArrowException) as error:
            raise ValueError(f"no record of a run: {error!r}") from error


def _plan(schema: pa.Schema, fields: Mapping[str, Any]) -> Plan:
    passed_over = fields.get("passed_over", {"num_files": 0, "examples": ()})
    given = PassedOver(num_files=passed_over["num_files"], examples=tuple(passed_over["examples"]))
    return Plan(schema=schema, **{**fields, "passed_over": given})


def read_record(store: Store) -> RunRecord | None:
    """The record of the run in `store`, None if its plan is not complete.

    Raises:
        OutputError: it cannot be read.
    """
    content = store.read(RUN)
    try:
        return None if content is None else RunRecord.from_json(content)
    except ValueError as error:
        raise OutputError(
            f"{store.location}/{RUN} cannot be used ({error}); restore it, or use a new output.path"
        ) from error


def _spec(job: Job) -> dict[str, Any]:
    fields = asdict(job)
    fields["task"]["kind"] = type(job.task).__name__.removesuffix("Task").lower()
    for place in ("model", "input", "output"):
        del fields[place]["storage_options"]
    del fields["model"]["version"]  # nobody's wish: it is in the fingerprint
    spec: dict[str, Any] = orjson.loads(dump_json(fields))
    return spec


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
