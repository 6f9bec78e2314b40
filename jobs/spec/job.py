"""The job spec: what strangers write in YAML, read strictly, turned into a `pipelines.job.Job`.

A field's description is the "allowed" half of its error text and its line in the reference. Relative paths are relative to the
current directory of whoever starts the job, not to the spec's own folder.
"""

import datetime as dt
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, create_model, model_validator

from jobs.errors import SpecError, shown
from jobs.spec.errors import problems_of
from jobs.spec.fields import FILE, NAME_TEXT, Bytes, Name, Place, Size, is_whole
from jobs.spec.places import Places, read_document
from jobs.spec.templates import template_problems
from models.checkpoint.place import is_local
from models.config.quantization import QuantizationConfig
from models.errors import CheckpointError, ConfigError
from pipelines.job import EngineSpec, InputSpec, Job, MaxFailed, ModelSpec, OutputSpec
from pipelines.task_base.yaml import MAX_COUNT, Count, Strict, TaskYaml, Text, wrong
from pipelines.tasks.kinds import KINDS

MAX_SEQS = 1 << 16
MAX_CPUS = 1 << 16
_CLUSTER = r"^(local|auto|(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):[0-9]{1,5})$"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedSpec:
    """A job, the values of its document, the places of its keys for checks that come later, and the cluster it asks for (None:
    RAY_ADDRESS, else a local one)."""

    job: Job
    values: Mapping[str, Any]
    places: Places
    cluster: str | None


def load_spec(path: Path, *, overrides: Sequence[str] = (), limit: int | None = None) -> LoadedSpec:
    """Reads a job spec, applies `--set` overrides, checks everything that needs neither the model nor the input.

    Raises:
        SpecError: with every problem found, one a line.
    """
    document = read_document(path, overrides)
    model = _with_kinds(JobSpecYaml)
    try:
        spec = model.model_validate(document.values)
    except ValidationError as error:
        raise SpecError(problems_of(error, model, document)) from error
    job = spec.to_job(limit)
    problems = template_problems(job.task, document.places)
    if job.engine.online_batched_tokens is not None:
        text = "belongs to a service spec; a job's engines have no online requests"
        problems.append(document.places.problem(("engine", "online_batched_tokens"), text))
    if problems:
        raise SpecError(problems)
    return LoadedSpec(job=job, values=document.values, places=document.places, cluster=spec.cluster)


def _quantization(value: Any) -> str | QuantizationConfig | None:
    """A method alone stays a name; settings that are all absent are left out."""
    if value is None:
        return None
    try:
        config = QuantizationConfig.of(value)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return config.method if config == QuantizationConfig(method=config.method) else config


def _without_password(path: str) -> str:
    try:
        is_local(path)
    except CheckpointError as error:
        raise ValueError(str(error)) from error
    return path


class ModelYaml(Strict):
    """`model`."""

    path: Annotated[Place, AfterValidator(_without_password)] = Field(
        description="a checkpoint folder (config.json, *.safetensors and tokenizer.json), a URL of one, or a hub id such as Qwen/Qwen3-4B"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto, float32, bfloat16 or float16"
    )
    quantization: Annotated[str | QuantizationConfig | None, PlainValidator(_quantization)] = Field(
        None, description="null, int8, nf4 or fp4, or a mapping with a method and its settings"
    )
    mamba_dt_clamp: Literal["prefill", "both", "none"] = Field("prefill", description="prefill, both or none")
    storage_options: dict[str, Any] = Field(
        {}, description="a mapping of options for the storage of path, if it is a URL"
    )

    def to_model(self) -> ModelSpec:
        return ModelSpec(
            path=absolute(self.path) if is_local(self.path) else self.path,
            dtype=self.dtype,
            quantization=self.quantization,
            mamba_dt_clamp=self.mamba_dt_clamp,
            storage_options=self.storage_options,
        )


class InputYaml(Strict):
    """`input`. The field for `schema` has another name because pydantic's models have a method of that name."""

    paths: Annotated[list[Place], Field(min_length=1)] = Field(
        description='a list of paths or patterns, such as ["in/*.parquet"]'
    )
    format: Literal["parquet", "jsonl", "csv"] | None = Field(
        None, description="parquet, jsonl or csv; default: by the files' endings"
    )
    columns: list[Text] | None = Field(None, description="a list of column names; default: all columns")
    column_types: dict[str, str] | None = Field(
        None, alias="schema", description="a mapping of column name to Arrow type, such as {body: string}"
    )
    storage_options: dict[str, Any] = Field({}, description="a mapping of options for the storage of paths")


class OutputYaml(Strict):
    """`output`."""

    path: Place = Field(description="a folder, or an s3:// URL of one")
    format: Literal["parquet", "jsonl"] = Field("parquet", description="parquet or jsonl")
    prefix: str = Field("", description="text that stands before the name of every result column")
    storage_options: dict[str, Any] = Field({}, description="a mapping of options for the storage of path")


class Replicas(NamedTuple):
    """So many engines, or from `least` to `most`."""

    least: int
    most: int | None


def _replicas(value: Any) -> Replicas:
    least, most = value, None
    if isinstance(value, dict):
        if set(value) != {"min", "max"}:
            raise ValueError(f"was {shown(value)}; a mapping must have min and max, and nothing else")
        least, most = value["min"], value["max"]
    if not is_whole(least, 1) or (isinstance(value, dict) and not is_whole(most, 1)):
        text = f"it must be a whole number from 1 to {MAX_COUNT:,}, or a mapping {{min, max}} of two"
        raise ValueError(f"was {shown(value)}; {text}")
    if most is not None and most < least:
        raise ValueError(f"was {shown(value)}; max must be at least min")
    return Replicas(least, most)


class EngineYaml(Strict):
    """`engine`."""

    service: Name | None = Field(None, description="the name of a running service")
    tensor_parallel_size: Count = Field(1, description="a whole number, at least 1")
    replicas: Annotated[Replicas, PlainValidator(_replicas)] = Field(
        Replicas(1, None), description="a whole number, at least 1, or a mapping {min, max} of two"
    )
    step_timeout_s: Size = Field(300.0, description="a number of seconds over 0")
    num_cpus: Annotated[Size, Field(le=MAX_CPUS)] | None = Field(
        None, description=f"a number over 0 and at most {MAX_CPUS:,}"
    )
    max_model_len: Count | None = Field(None, description="a whole number of tokens, at least 1")
    max_num_seqs: Annotated[Count, Field(le=MAX_SEQS)] = Field(
        256, description=f"a whole number from 1 to {MAX_SEQS:,}"
    )
    max_num_batched_tokens: Count | None = Field(None, description="a whole number of tokens, at least 1")
    online_batched_tokens: Count | None = Field(None, description="a whole number of tokens, at least 1")
    block_size: Count | None = Field(None, description="a whole number of tokens, at least 1")
    cache_bytes: Bytes | None = Field(None, description="a whole number of bytes, at least 1")
    gpu_memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="a number over 0 and at most 1"
    )

    @model_validator(mode="after")
    def _one_cache_size(self) -> "EngineYaml":
        if self.cache_bytes is not None and self.gpu_memory_fraction is not None:
            raise wrong("gpu_memory_fraction", "stands beside cache_bytes; both size the cache, give one")
        return self

    @model_validator(mode="after")
    def _online_within_all(self) -> "EngineYaml":
        online, most = self.online_batched_tokens, self.max_num_batched_tokens
        if online is not None and most is not None and online > most:
            raise wrong(
                "online_batched_tokens", f"was {online}; it must be at most max_num_batched_tokens, which is {most}"
            )
        return self

    @model_validator(mode="after")
    def _service_alone(self) -> "EngineYaml":
        others = sorted(self.model_fields_set - {"service", "max_model_len", "max_num_seqs"})
        if self.service is not None and others:
            raise wrong(others[0], "stands beside service, whose engines are there already; leave it out")
        return self

    def to_engine(self) -> EngineSpec:
        least, most = self.replicas
        return EngineSpec(replicas=least, max_replicas=most, **self.model_dump(exclude={"replicas"}))


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

    later: ClassVar[Mapping[str, str]] = {"models": "belongs to a service spec; a job has one model: {path: ...}"}

    name: Name = Field(description=NAME_TEXT)
    model: ModelYaml = Field(description="a mapping with at least path")
    task: TaskYaml = Field(description="a mapping with at least kind")
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
    cluster: Annotated[str, Field(pattern=_CLUSTER)] | None = Field(
        None, description="local, auto or HOST:PORT; default: RAY_ADDRESS if set, else local"
    )

    def to_job(self, limit: int | None) -> Job:
        source = InputSpec(
            paths=tuple(absolute(path) for path in self.input.paths),
            format=self.input.format,
            columns=None if self.input.columns is None else tuple(self.input.columns),
            schema=self.input.column_types,
            storage_options=self.input.storage_options,
        )
        target = OutputSpec(
            path=absolute(self.output.path),
            format=self.output.format,
            prefix=self.output.prefix,
            storage_options=self.output.storage_options,
        )
        return Job(
            name=self.name,
            model=self.model.to_model(),
            task=self.task.to_task(),
            input=source,
            output=target,
            engine=self.engine.to_engine(),
            unit_rows=self.unit_rows,
            max_failed=self.max_failed,
            seed=self.seed,
            limit=limit,
            date=self.date,
        )


def _with_kinds(model: type[JobSpecYaml]) -> type[JobSpecYaml]:
    """The same with a task of one of the kinds there are."""
    kinds: Any = Union[tuple(KINDS.values())]  # noqa: UP007 - of as many as the table has
    field: Any = Annotated[kinds, Field(discriminator="kind", description=model.model_fields["task"].description)]
    return create_model(model.__name__, __base__=model, task=field)


def absolute(path: str) -> str:
    """A local path as workers in other directories can open it; a URL as it is."""
    path = path.removeprefix(FILE)
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - keeps patterns
