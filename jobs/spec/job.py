"""The job spec: what strangers write in YAML, read strictly, turned into a `pipelines.job.Job`.

A field's description is the "allowed" half of its error text and its line in the reference. Relative paths are relative to the
directory in which the command is started, not to the spec's own folder.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Union

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, create_model
from pydantic_core import PydanticCustomError

from jobs.errors import SpecError, shown
from jobs.spec.batch import batch_problems, is_batch, no_task
from jobs.spec.cascade import (
    StepYaml,
    bound_problems,
    cascade_problems,
    engine_problems,
    is_cascade,
    no_model,
    online_problems,
    steps_of,
)
from jobs.spec.dedup import dedup_problems
from jobs.spec.document.errors import problems_of
from jobs.spec.document.key_paths import KeyPath
from jobs.spec.document.places import Places, YamlDocument, read_document
from jobs.spec.engine import EngineYaml
from jobs.spec.fields import NAME_TEXT, Name, Place, absolute, is_whole
from jobs.spec.model import ModelYaml
from jobs.spec.parts import PARTS_TEXT, PartsYaml
from jobs.spec.several import TaskName, is_several, no_single_task, several_of, several_problems
from jobs.spec.templates import TaskTemplates
from jobs.spec.truth import truth_columns, truth_problems
from pipelines.formats.batch_lines import BATCH_FORMAT
from pipelines.input_formats.table import FORMATS, format_names
from pipelines.job import EngineSpec, Escalation, InputSpec, Job, MaxFailed, ModelSpec, OutputFormat, OutputSpec
from pipelines.task_base.change import Change, to_any
from pipelines.task_base.task import Task
from pipelines.task_base.yaml import MAX_COUNT, Strict, TaskYaml, Text
from pipelines.tasks.batch import BatchTask
from pipelines.tasks.kinds import KINDS
from pipelines.tasks.several.partial import DROP, Partial
from pipelines.tasks.several.task import SeveralTask

_CLUSTER = r"^(local|auto|(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):[0-9]{1,5})$"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSpec:
    """A job, the values of its document, the places of its keys for checks that come later, every
    column that the input must have with the key that needs it, the cluster it asks for (None:
    RAY_ADDRESS, else a local one), and all of it as it was `written`."""

    job: Job
    values: Mapping[str, Any]
    places: Places
    named_columns: Sequence[tuple[KeyPath, str]]
    cluster: str | None
    written: "JobSpecYaml"


Check = Callable[[Job, Places], list[str]]

EVERYWHERE: Final[tuple[Check, ...]] = (
    batch_problems,
    several_problems,
    cascade_problems,
    truth_problems,
    dedup_problems,
    online_problems,
)
"""What is checked of a job whatever is done with it."""
TO_RUN: Final = (*EVERYWHERE, bound_problems)
"""What is checked of a job that is to be run, or planned."""


def load_spec(
    path: Path, *, overrides: Sequence[str] = (), limit: int | None = None, checks: Sequence[Check] = TO_RUN
) -> LoadedSpec:
    """Reads a job spec, applies `--set` overrides, checks everything that needs neither the model nor the input.

    Raises:
        SpecError: with every problem found, one per line.
    """
    return spec_in(read_document(path, overrides), limit=limit, checks=checks)


def spec_in(document: YamlDocument, *, limit: int | None = None, checks: Sequence[Check] = TO_RUN) -> LoadedSpec:
    """The job that a document describes, checked likewise.

    Raises:
        SpecError: with every problem found, one per line.
    """
    model = _form_of(document.values)
    model = for_cascades(model) if is_cascade(document.values) else model
    try:
        spec = model.model_validate(document.values)
    except ValidationError as error:
        raise SpecError(problems_of(error, model, document)) from error
    places = document.places
    if problems := engine_problems(spec.cascade or (), spec.engine, places):
        raise SpecError(problems)
    job = spec.to_job(limit)
    templates = TaskTemplates.of(job.task, places, job.parts)
    problems = [*templates.problems, *(problem for check in checks for problem in check(job, places))]
    if problems:
        raise SpecError(problems)
    carried = ((("input", "columns", index), name) for index, name in enumerate(job.input.columns or ()))
    return LoadedSpec(
        job=job,
        values=document.values,
        places=document.places,
        named_columns=(*templates.required_columns, *carried, *truth_columns(job)),
        cluster=spec.cluster,
        written=spec,
    )


def _form_of(values: Mapping[str, Any]) -> type["JobSpecYaml"]:
    """The document as its input and its tasks have it."""
    if is_batch(values):
        return for_batches(JobSpecYaml)
    return for_several(JobSpecYaml) if is_several(values) else with_kinds(JobSpecYaml)


def _known_format(name: str) -> str:
    if name not in FORMATS:
        raise PydanticCustomError("unknown_format", "no input format")
    return name


InputFormatName = Annotated[str, AfterValidator(_known_format)]


class InputYaml(Strict):
    """`input`. The field for `schema` has another name because pydantic's models have a method of that name."""

    changeable: ClassVar[Mapping[str, Change]] = {"storage_options": to_any}

    paths: Annotated[list[Place], Field(min_length=1)] = Field(
        description='a list of paths or patterns, such as ["in/*.parquet"]'
    )
    format: InputFormatName | None = Field(None, description=f"{format_names()}; default: by the files' endings")
    columns: list[Text] | None = Field(None, description="a list of column names; default: all columns")
    column_types: dict[str, str] | None = Field(
        None, alias="schema", description="a mapping of column name to Arrow type, such as {body: string}"
    )
    storage_options: dict[str, Any] = Field({}, description="a mapping of options for the storage of paths")


class OutputYaml(Strict):
    """`output`."""

    changeable: ClassVar[Mapping[str, Change]] = {"storage_options": to_any}

    path: Place = Field(description="a folder, or an s3:// URL of one")
    format: OutputFormat = Field("parquet", description="parquet, jsonl or openai-batch")
    prefix: str = Field("", description="text that stands before the name of every result column")
    storage_options: dict[str, Any] = Field({}, description="a mapping of options for the storage of path")


class ReportYaml(Strict):
    """`report`."""

    truth: Text | dict[str, Text] | None = Field(
        None,
        description="the name of a column of the input that says what is right, for tasks that label; "
        "of several tasks a mapping of their names to one each",
    )


def _unit_rows(value: Any) -> int | None:
    if value == "auto":
        return None
    if is_whole(value, 1):
        return int(value)
    raise ValueError(f"was {shown(value)}; it must be auto or a whole number from 1 to {MAX_COUNT:,}")


def _date(value: Any) -> dt.date | None:
    if value is None or type(value) is dt.date:
        return value
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"was {shown(value)}; it must be a date such as 2026-01-31") from error


def _max_failed(value: Any) -> MaxFailed | None:
    if value is None:
        return None
    if is_whole(value, 0):
        return MaxFailed(count=value)
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)) and float(match[1]) <= 100:
        return MaxFailed(fraction=float(match[1]) / 100)
    allowed = f'null, a count of rows such as 100 (at most {MAX_COUNT:,}), or a share such as "0.1%"'
    raise ValueError(f"was {shown(value)}; it must be {allowed}")


class JobSpecYaml(Strict):
    """The whole document."""

    changeable: ClassVar[Mapping[str, Change]] = {"cluster": to_any}
    later: ClassVar[Mapping[str, str]] = {"models": "belongs to a service spec; a job has one model: {path: ...}"}

    name: Name = Field(description=NAME_TEXT)
    model: ModelYaml = Field(description="a mapping with at least path")
    cascade: Annotated[list[StepYaml], Field(min_length=2)] | None = Field(
        None, description="a list of at least two steps, each {model: ..., until: {score: ...}}; default: model alone"
    )
    task: TaskYaml = Field(description="a mapping with at least kind")
    tasks: dict[str, TaskYaml] | None = Field(
        None, description="a mapping of at least two names to a task each, all for every row; default: task alone"
    )
    partial: Partial = Field(DROP, description="drop or keep")
    parts: PartsYaml | None = Field(None, description=PARTS_TEXT)
    input: InputYaml = Field(description="a mapping with at least paths")
    output: OutputYaml = Field(description="a mapping with at least path")
    engine: EngineYaml = Field(EngineYaml(), description="a mapping of engine options")
    unit_rows: Annotated[int | None, PlainValidator(_unit_rows)] = Field(
        None, description="auto or a whole number, at least 1"
    )
    max_failed: Annotated[MaxFailed | None, PlainValidator(_max_failed)] = Field(
        None, description='null, a count of rows such as 100, or a share such as "0.1%"'
    )
    date: Annotated[dt.date | None, PlainValidator(_date)] = Field(
        None,
        description="the date that chat templates take for today, such as 2026-01-31; default: the day of the plan",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="a whole number from 0 to 2**63 - 1")
    report: ReportYaml = Field(ReportYaml(), description="a mapping of what reports do besides")
    dedup: bool = Field(False, description="true or false")
    cluster: Annotated[str, Field(pattern=_CLUSTER)] | None = Field(
        None, description="local, auto or HOST:PORT; default: RAY_ADDRESS if set, else local"
    )

    def to_job(self, limit: int | None) -> Job:
        columns = () if self.input.format == BATCH_FORMAT else self.input.columns
        source = InputSpec(
            paths=tuple(absolute(path) for path in self.input.paths),
            format=self.input.format,
            columns=None if columns is None else tuple(columns),
            schema=self.input.column_types,
            storage_options=self.input.storage_options,
        )
        target = OutputSpec(
            path=absolute(self.output.path),
            format=self.output.format,
            prefix=self.output.prefix,
            storage_options=self.output.storage_options,
        )
        model, engine, further = self._models()
        return Job(
            name=self.name,
            model=model,
            task=self._task(),
            input=source,
            output=target,
            engine=engine,
            unit_rows=self.unit_rows,
            max_failed=self.max_failed,
            seed=self.seed,
            dedup=self.dedup,
            limit=limit,
            date=self.date,
            truth=self.report.truth,
            cascade=further,
            parts=tuple(self.parts or ()),
        )

    def _task(self) -> Task:
        if self.tasks is not None:
            return several_of(self.tasks, self.partial)
        if self.task is None:
            return BatchTask()
        task = self.task.to_task()
        return replace(task, partial=self.partial) if isinstance(task, SeveralTask) else task

    def _models(self) -> tuple[ModelSpec, EngineSpec, tuple[Escalation, ...]]:
        """The first model, its engines, and what rows go to behind it."""
        if self.cascade is None:
            return self.model.to_model(), self.engine.to_engine(), ()
        return steps_of(self.cascade, self.engine)


def any_kind() -> Any:
    """The kinds of tasks that there are now: of as many as the table has."""
    return Union[tuple(KINDS.values())]  # noqa: UP007


def with_kinds(model: type[JobSpecYaml]) -> type[JobSpecYaml]:
    """The same with a task of one of the kinds there are."""
    field: Any = Annotated[any_kind(), Field(discriminator="kind", description=model.model_fields["task"].description)]
    return create_model(model.__name__, __base__=model, task=field)


def for_several(model: type[JobSpecYaml]) -> type[JobSpecYaml]:
    """The same with several tasks in the place of one."""
    one: Any = Annotated[any_kind(), Field(discriminator="kind")]
    tasks: Any = Annotated[
        dict[TaskName, one], Field(min_length=2, description=model.model_fields["tasks"].description)
    ]
    no_one: Any = (Annotated[Any, PlainValidator(no_single_task)], None)
    return create_model(model.__name__, __base__=model, task=no_one, tasks=tasks)


def for_batches(model: type[JobSpecYaml]) -> type[JobSpecYaml]:
    """The same without a task: the lines of a batch file say what is asked."""
    return create_model(model.__name__, __base__=model, task=(Annotated[Any, PlainValidator(no_task)], None))


def for_cascades(model: type[JobSpecYaml]) -> type[JobSpecYaml]:
    """The same without a model: each step of the cascade has one."""
    return create_model(model.__name__, __base__=model, model=(Annotated[Any, PlainValidator(no_model)], None))
