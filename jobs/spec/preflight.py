"""What can be known to be wrong before anything starts: the model's files, the task on that model, the input's columns.

Reads headers only, in a second or two. Every problem comes with its place in the YAML.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from jobs.errors import SpecError
from jobs.spec.job import LoadedSpec
from jobs.spec.key_paths import KeyPath, key_path
from jobs.spec.model_check import check_model, problems_at
from jobs.spec.output_check import check_output
from jobs.spec.templates import required_columns
from models.config.model_config import ModelConfig
from models.errors import ConfigError
from pipelines.errors import PlanError, SourceError, TaskError
from pipelines.formats.hive import folder_values
from pipelines.formats.schema import column_hint, parse_types, shown_names
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage
from pipelines.opened import OpenedJob
from pipelines.sample import MAX_OVERRUNS
from pipelines.task_base.facts import ModelFacts
from pipelines.tasks.finish import result_columns
from pipelines.tasks.isolated_preparer import IsolatedPreparer
from pipelines.tasks.isolated_work import FittedTask
from pipelines.units.listing import SourceFile, Sources, find_sources
from pipelines.units.overlap import check_apart
from pipelines.units.scanning import what_is_wrong

MODEL, PATHS, ENGINE = ("model", "path"), ("input", "paths"), ("engine",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What was opened on the way, for a plan or a run to go on with; `preparer` is to be closed."""

    opened: OpenedJob
    config: ModelConfig
    preparer: IsolatedPreparer

    @property
    def facts(self) -> ModelFacts:
        return self.opened.fitted.facts

    @property
    def meaning_of_scores(self) -> str | None:
        """What the scores of the checkpoint's own classes will be, for people; None where the job asks for something else."""
        return self.opened.job.task.meaning_of_scores(self.facts)

    @property
    def caution(self) -> str | None:
        """What the results may be taken for by mistake."""
        return self.opened.job.task.caution(self.facts)


def check_before_run(spec: LoadedSpec, *, today: dt.date | None = None) -> Preflight:
    """Opens the checkpoint, fits the task to it, lists the input and compares its columns with what the task names. `today` is what chat
    templates are told if the job has no date.

    Raises:
        SpecError: something is wrong.
    """
    config, found = check_model(spec.job.model, spec.job.engine, spec.places)
    job = replace(spec.job, model=replace(spec.job.model, version=found.version))
    dated = job.dated(today)
    preparer = IsolatedPreparer(dated, found.folder, config, max_overruns=MAX_OVERRUNS)
    with ExitStack() as on_error:
        on_error.callback(preparer.close)
        fitted, sources = _checked_with(preparer, spec)
        on_error.pop_all()
    opened = OpenedJob(job=job, date=dated.date, fitted=fitted, sources=sources)
    return Preflight(opened=opened, config=config, preparer=preparer)


def _checked_with(preparer: IsolatedPreparer, spec: LoadedSpec) -> tuple[FittedTask, Sources]:
    job, places = spec.job, spec.places
    with problems_at(places, MODEL):
        preparer.load()
    with problems_at(places, ("task",)):
        fitted = preparer.fitted
    check_output(spec)
    with problems_at(places, ("input", "schema")):
        parse_types(job.input.schema or {})
    with problems_at(places, ("output", "path")):
        check_apart(job.input, job.output)
    with _problems_of_paths(spec):
        sources = find_sources(job.input)
        first = next((source for source in sources.files if source.size), sources.files[0])
        columns = _columns(first, Storage.of(job.input))
    check_columns(spec, columns, [field.name for field in result_columns(job, fitted.facts)])
    return fitted, sources


@contextmanager
def _problems_of_paths(spec: LoadedSpec) -> Iterator[None]:
    """What is wrong with the input at the one of its paths that the error names, or at all of them."""
    try:
        yield
    except (PlanError, SourceError) as error:
        paths = enumerate(spec.job.input.paths)
        index = next(((number,) for number, path in paths if path in str(error)), ())
        raise SpecError([spec.places.problem((*PATHS, *index), str(error))]) from error


@contextmanager
def placed_errors(spec: LoadedSpec) -> Iterator[None]:
    """What only planning and probing find out, such as a column that no row of JSONL has, as a `SpecError` at the key that caused it."""
    try:
        yield
    except TaskError as error:
        raise SpecError([spec.places.problem(key_path(error.place), error.message)]) from error
    except ConfigError as error:  # the checkpoint's own was read before
        raise SpecError([spec.places.problem(ENGINE, str(error))]) from error
    except PlanError as error:
        missing = str(error).partition("has no column ")[2].partition(";")[0].split(", ")
        place = next((path for path, column in _named_columns(spec) if column in missing), PATHS)
        raise SpecError([spec.places.problem(place, str(error))]) from error


def _named_columns(spec: LoadedSpec) -> list[tuple[KeyPath, str]]:
    carried = spec.job.input.columns or ()
    return [
        *required_columns(spec.job.task),
        *((("input", "columns", index), name) for index, name in enumerate(carried)),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsSeen:
    """The columns at the head of a file; `is_all` unless others may follow, as in JSONL."""

    names: tuple[str, ...]
    place: str
    is_all: bool


def _columns(source: SourceFile, storage: Storage) -> ColumnsSeen:
    format = FORMATS[source.format]
    try:
        seen = format.columns_at_head(storage, source.path)
    except SourceError as error:
        raise PlanError(what_is_wrong(storage, format, source.path, source.size) or str(error)) from error
    names = tuple(dict.fromkeys((*seen.names, *folder_values(source.path))))
    return ColumnsSeen(names=names, place=source.path, is_all=seen.is_all)


def check_columns(spec: LoadedSpec, seen: ColumnsSeen, result_names: Sequence[str]) -> None:
    """Compares the input's columns with those that the spec names, and those it carries with the result columns.

    Raises:
        SpecError: a column is missing, or two have one name.
    """
    job, places = spec.job, spec.places
    carried = job.input.columns
    problems = []
    if seen.is_all:
        has = f"{seen.place} has {shown_names(seen.names) or 'no columns'}"
        problems += [
            places.problem(path, f"the input has no column {column!r}; {has}{column_hint(column, seen.names)}")
            for path, column in _named_columns(spec)
            if column not in seen.names
        ]
    taken = [name for name in (seen.names if carried is None else carried) if name in result_names]
    if taken:
        where = ("output", "prefix") if job.output.prefix else ("output",)
        text = f"the input's column {', '.join(taken)} has the name of a result column; set output.prefix, such as prefix: out_"
        problems.append(places.problem(where, text))
    if problems:
        raise SpecError(problems)
