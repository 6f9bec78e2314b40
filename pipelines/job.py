"""A run, described: model, task, input, output and engine as frozen dataclasses.

`jobs.spec.job` makes them from YAML and checks what strangers wrote; everything below takes them as they are.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from actors.work import ReplicaOptions
from models.checkpoint.found import FoundCheckpoint, Parts
from models.checkpoint.place import find_checkpoint
from models.config.option import Option
from models.config.quantization import QuantizationConfig
from pipelines.task_base.judged import Truth
from pipelines.task_base.task import Task

OutputFormat = Literal["parquet", "jsonl", "openai-batch"]
MAX_CPUS = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """A checkpoint - a folder, a URL with its storage options, or a hub id - and how to load it.

    `options` are those that the checkpoint's family declares. `version` is the one that a run has found there: every
    process of the run loads that one or none.
    """

    path: str
    dtype: str = "auto"
    quantization: str | QuantizationConfig | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    version: str | None = None

    def find(self, parts: Parts) -> FoundCheckpoint:
        """The checkpoint on this machine.

        Raises:
            CheckpointError: it cannot be read, or has changed since `version`.
        """
        return find_checkpoint(self.path, parts=parts, storage_options=self.storage_options, version=self.version)

    def pinned(self) -> Self:
        """The same with the version that is there now.

        Raises:
            CheckpointError: it cannot be read, or has changed since `version`.
        """
        return replace(self, version=self.find("description").version)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """What is read. `format` is a name of `pipelines.input_formats.table` (None: by the files' endings). `columns` are carried to the
    output (None: all); `schema` maps column to Arrow type name and overrides inference."""

    paths: tuple[str, ...]
    format: str | None = None
    columns: tuple[str, ...] | None = None
    schema: Mapping[str, str] | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """Where results go. `prefix` stands before every result column."""

    path: str
    format: OutputFormat = "parquet"
    prefix: str = ""
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec(ReplicaOptions):
    """How many engines, and how large: the options of one, and those of a cluster.

    With `max_replicas` there are from `replicas` to that many, by what there is to do. With `service` the replicas of that running
    service compute, and the job has no engines of its own.
    """

    num_cpus: Annotated[float | None, Option("CPUs of one shard", above=0, most=MAX_CPUS, unset="1")] = None
    replicas: int = 1
    max_replicas: int | None = None
    service: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MaxFailed:
    """How many failed rows a run accepts: a count, or a fraction of the rows seen (which counts from 1,000 rows on)."""

    count: int | None = None
    fraction: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Escalation:
    """A further step of a cascade: rows that the step before gave no answer, or one with a score under `below`, go to this model on
    engines of its own. `below` None: the bound is still to be found."""

    below: float | None
    model: ModelSpec
    engine: EngineSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run, whole. `unit_rows` None is auto; `limit` is the most rows to take from the corpus
    (None: all).

    With a `cascade` the rows go to `model` first, on the engines of `engine`, and from step to step.

    `date` is the one that chat templates take for today. None: the day on which the run was
    planned, which its record keeps, so that a run that goes on tomorrow goes on with the same
    prompts. With `dedup` an engine computes equal requests that it has at the same time once,
    which is for work whose answers follow from the prompt alone. `truth` is the column of the
    input that reports hold the results against; no result depends on it. `parts` are templates, as
    they were given: one after the other they stand where the task's print `{{ parts }}`, in an order
    that is found when the job is opened (`pipelines.parts`).
    """

    name: str
    model: ModelSpec
    task: Task
    input: InputSpec
    output: OutputSpec
    engine: EngineSpec = field(default_factory=EngineSpec)
    unit_rows: int | None = None
    max_failed: MaxFailed | None = None
    seed: int = 0
    dedup: bool = False
    limit: int | None = None
    date: dt.date | None = None
    truth: Truth | None = None
    cascade: tuple[Escalation, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Self, ...]:
        """The job of each model alone, in the order in which rows go through them; the job itself if it has one."""
        if not self.cascade:
            return (self,)
        others = (replace(self, model=each.model, engine=each.engine, cascade=()) for each in self.cascade)
        return (replace(self, cascade=()), *others)

    @property
    def bounds(self) -> tuple[float, ...]:
        """The score under which rows go on from each step but the last."""
        found = tuple(each.below for each in self.cascade if each.below is not None)
        assert len(found) == len(self.cascade), "a spec whose bounds are still to be found is not run"
        return found

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        """The engines of each step."""
        return (self.engine, *(each.engine for each in self.cascade))

    @property
    def step_names(self) -> tuple[str, ...]:
        """What each step's model is called in results."""
        return model_names([self.model.path, *(each.model.path for each in self.cascade)])

    @property
    def now(self) -> dt.datetime | None:
        """The beginning of `date`, in UTC."""
        return None if self.date is None else dt.datetime.combine(self.date, dt.time(), dt.UTC)

    def dated(self, today: dt.date | None) -> Self:
        """The same job with a date: its own, or this one."""
        return self if self.date is not None else replace(self, date=today)


def model_names(paths: Sequence[str]) -> tuple[str, ...]:
    """The last part of each path or URL; one that another step's model has already, with the step's number (from 1) behind it."""
    names: list[str] = []
    for number, path in enumerate(paths, 1):
        name = PurePosixPath(urlsplit(path).path if "://" in path else path).name or "model"
        while name in names:
            name = f"{name}-{number}"
        names.append(name)
    return tuple(names)
