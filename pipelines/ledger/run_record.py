"""`run.json`: what a run is, written once its plan is complete. A folder without it has no plan,
whatever else it holds.

    record = read_record(store)       # None before the plan is complete
    record.schema, record.format      # what workers and reports need

It holds the spec without storage options, the Arrow schema (for readers, and exactly), the
fingerprint, the sizes of the plan, size and hash of its table of units, and the versions of what
computes; the later generations of the spec, if dead letters were retried with another; and a seal
over all of it.
"""

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import DamageError
from pipelines.io.outputs import Store
from pipelines.job import Job, OutputFormat, model_names
from pipelines.ledger.fingerprint import differences
from pipelines.ledger.generation import SpecGeneration, check_spec, spec_of, trial_in, versions
from pipelines.ledger.json_fields import Fields
from pipelines.ledger.receipts import Shard
from pipelines.ledger.sealed_json import sealed, unsealed
from pipelines.task_base.judged import Truth
from pipelines.units.listing import PassedOver
from pipelines.units.planning import Plan

RUN = "run.json"
_SIZES = ("num_files", "num_units", "num_rows", "num_bytes")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The content of `run.json`. `spec` is the job as JSON values, without storage options;
    `units` is the table of units, None in a folder of a version before; `date` is the one that
    chat templates take for today; `trial` is what the task was told before all rows
    (`pipelines.task_base.task.Task.found_in`), None if it asked nothing; of a cascade as many
    numbers of each model, one model behind the other. `parts_order` has the
    numbers of the job's parts in the order that was found for them, None if it has none.
    `generations` are those after the one that the run was planned with, which has the number
    0."""

    name: str
    spec: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    plan: Plan
    units: Shard | None = None
    date: dt.date | None = None
    trial: tuple[float, ...] | None = None
    parts_order: tuple[int, ...] | None = None
    generations: tuple[SpecGeneration, ...] = ()

    @property
    def format(self) -> OutputFormat:
        """The format of the results."""
        found: OutputFormat = self.spec["output"]["format"]
        return found

    @property
    def schema(self) -> pa.Schema:
        """The columns that units are read with."""
        return self.plan.schema

    @property
    def step_names(self) -> tuple[str, ...]:
        """What each model of a cascade is called in the results; the one there is without a cascade."""
        further = self.spec.get("cascade", ())
        return model_names([self.spec["model"]["path"], *(step["model"]["path"] for step in further)])

    @property
    def bounds(self) -> tuple[float, ...]:
        """The scores under which rows go on from each model of a cascade but the last."""
        return tuple(step["below"] for step in self.spec.get("cascade", ()))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of templates, as they were given."""
        return tuple(self.spec.get("parts", ()))

    @property
    def truth(self) -> Truth | None:
        """The column of the input that reports hold the results against."""
        found: Truth | None = self.spec["report"]["truth"] if "report" in self.spec else None
        return found

    @classmethod
    def of(
        cls,
        job: Job,
        fingerprint: Mapping[str, Any],
        plan: Plan,
        units: Shard,
        date: dt.date | None = None,
        trial: tuple[float, ...] | None = None,
        parts_order: tuple[int, ...] | None = None,
    ) -> "RunRecord":
        return cls(
            name=job.name,
            spec=spec_of(job),
            fingerprint=fingerprint,
            versions=versions(),
            plan=plan,
            units=units,
            date=date,
            trial=trial,
            parts_order=parts_order,
        )

    def to_json(self) -> bytes:
        plan = self.plan
        return sealed(
            {
                "name": self.name,
                "spec": self.spec,
                "schema": {field.name: str(field.type) for field in plan.schema},
                "arrow_schema": base64.b64encode(plan.schema.serialize().to_pybytes()).decode(),
                "plan": {name: getattr(plan, name) for name in _SIZES} | {"passed_over": asdict(plan.passed_over)},
                **({} if self.units is None else {"units": asdict(self.units)}),
                "date": self.date,
                "fingerprint": self.fingerprint,
                "versions": self.versions,
                **({} if self.trial is None else {"trial": self.trial}),
                **({} if self.parts_order is None else {"parts_order": self.parts_order}),
                **({"generations": [each.to_json() for each in self.generations]} if self.generations else {}),
            }
        )

    @classmethod
    def from_json(cls, content: bytes) -> "RunRecord":
        """Raises:
        ValueError: the content is no record of a run.
        """
        fields = Fields(unsealed(content))
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(fields.text("arrow_schema"))))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"its arrow_schema is none: {error}") from error
        check_spec(fields.object("spec"))
        fields.object("versions").text("millrace")
        return cls(
            name=fields.text("name"),
            spec=fields.object("spec").values,
            fingerprint=fields.object("fingerprint").values,
            versions=fields.object("versions").values,
            plan=_plan(schema, fields.object("plan"), fields.object("fingerprint").count("unit_rows")),
            units=_units(fields),
            date=_date(fields),
            trial=trial_in(fields),
            parts_order=_parts_order(fields),
            generations=_generations(fields),
        )

    def generation_of(self, fingerprint: Mapping[str, Any]) -> int | None:
        """The number of the generation that has this fingerprint; None if none has."""
        known = [self.fingerprint, *(generation.fingerprint for generation in self.generations)]
        return next((number for number, each in enumerate(known) if not differences(each, fingerprint)), None)

    def trial_of(self, generation: int) -> tuple[float, ...] | None:
        """What the task of a generation was told before all rows, None if that is nothing."""
        return self.generations[generation - 1].trial if generation else self.trial


def _units(fields: Fields) -> Shard | None:
    if "units" not in fields.values:
        return None
    units = fields.object("units")
    return Shard(name=units.text("name"), num_bytes=units.count("num_bytes"), sha256=units.text("sha256"))


def _date(fields: Fields) -> dt.date | None:
    if "date" not in fields.values or fields.is_null("date"):
        return None
    return dt.date.fromisoformat(fields.text("date"))


def _generations(fields: Fields) -> tuple[SpecGeneration, ...]:
    if "generations" not in fields.values:
        return ()
    return tuple(map(SpecGeneration.from_json, fields.objects("generations")))


def _parts_order(fields: Fields) -> tuple[int, ...] | None:
    if "parts_order" not in fields.values:
        return None
    order = fields.counts("parts_order")
    if sorted(order) != [*range(len(fields.object("spec").texts("parts")))]:
        raise ValueError(f"its parts_order is {list(order)}, which is no order of its spec.parts")
    return order


def _plan(schema: pa.Schema, fields: Fields, unit_rows: int) -> Plan:
    passed_over = PassedOver()
    if "passed_over" in fields.values:
        given = fields.object("passed_over")
        passed_over = PassedOver(num_files=given.count("num_files"), examples=given.texts("examples"))
    sizes = {name: fields.count(name) for name in _SIZES}
    return Plan(schema=schema, unit_rows=unit_rows, passed_over=passed_over, **sizes)


def read_record(store: Store) -> RunRecord | None:
    """The record of the run in `store`, None if its plan is not complete.

    Raises:
        DamageError: it is not as it was written.
        OutputError: it cannot be read.
    """
    content = store.read(RUN)
    try:
        return None if content is None else RunRecord.from_json(content)
    except ValueError as error:
        raise DamageError(
            f"{store.location}/{RUN} is damaged: {error}; restore it, or use a new output.path"
        ) from error
