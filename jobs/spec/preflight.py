"""What can be known to be wrong before anything starts: the model's files, the task on that model, the input's columns.

Reads headers only, in a second or two. Every problem comes with its place in the YAML.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial

from jobs.errors import SpecError
from jobs.spec.cascade import engine_key, model_at
from jobs.spec.job import LoadedSpec
from jobs.spec.model_check import check_model, problems_at
from jobs.spec.output_check import check_output
from jobs.spec.placed_errors import problems_of_input
from pipelines.errors import PlanError, SourceError, errors_of_file
from pipelines.formats.hive import folder_values
from pipelines.formats.schema import column_hint, parse_types, shown_names
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage
from pipelines.opened import JobOpening, OpenedJob, pinned_to
from pipelines.parts.settle import settle_parts
from pipelines.sample import MAX_OVERRUNS
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.finish import result_columns
from pipelines.unit_steps.found_model import FoundModel
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.listing import SourceFile, Sources, find_sources
from pipelines.units.overlap import check_apart
from pipelines.units.scanning import what_is_wrong


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """What was opened on the way, for a plan or a run to go on with; the `preparers` of its models are to be closed."""

    opened: OpenedJob
    preparers: tuple[IsolatedPreparer, ...]

    def close(self) -> None:
        """Ends what prepares rows."""
        for preparer in self.preparers:
            preparer.close()

    @property
    def facts(self) -> TaskFacts:
        return self.opened.fitted.facts

    @property
    def meaning_of_scores(self) -> str | None:
        """What the scores of the checkpoint's own classes will be, for people; None if the job
        asks for something else."""
        return self.opened.job.task.meaning_of_scores(self.facts)

    @property
    def caution(self) -> str | None:
        """What the results may be taken for by mistake."""
        return self.opened.job.task.caution(self.facts)

    @property
    def caution_of_bits(self) -> str | None:
        """What is to be expected of weights in so few bits as the spec asks for, or a checkpoint has."""
        asked = [step.model.quantization for step in self.opened.job.steps]
        configs = [model.found.config for model in self.opened.models]
        few = [
            pair for pair in zip(configs, asked, strict=True) if pair[1] is not None or pair[0].quantization is not None
        ]
        if not few:
            return None
        from models.loading.small_models import caution_of_four_bits  # imports torch

        cautions = dict.fromkeys(filter(None, (caution_of_four_bits(*pair) for pair in few)))
        return "; ".join(cautions) or None


def check_before_run(spec: LoadedSpec, *, today: dt.date | None = None) -> Preflight:
    """Opens the checkpoint, fits the task to it, lists the input and compares its columns with what the task names. `today` is what chat
    templates are told if the job has no date.

    Raises:
        SpecError: something is wrong.
    """
    check = SpecCheck(spec, today=today)
    try:
        return check.found()
    except BaseException:
        check.close()
        raise


class SpecCheck:
    """A check that is under way: a job's opening (`pipelines.opened.Opening`) whose errors have their places in the spec.

    All that is wrong except for the tokenizer, and the task on it, is found at once.
    """

    def __init__(
        self,
        spec: LoadedSpec,
        *,
        today: dt.date | None = None,
        on_found: Callable[[Preflight], None] | None = None,
    ) -> None:
        """`on_found` takes what is found, once all of it is.

        Raises:
            SpecError: something is wrong.
        """
        self._spec, self._on_found = spec, on_found
        found = tuple(_found_models(spec))
        look = cache(partial(_seen_in, spec))  # while tokenizers are read, unless what is asked of them follows from it
        if spec.job.parts:
            look()
        with problems_of_input(spec):
            settled = settle_parts(pinned_to(spec.job, [model.checkpoint for model in found]), lambda: look().sources)
        dated = settled.job.dated(today)
        with ExitStack() as on_error:
            preparers = []
            for step, model in zip(dated.steps, found, strict=True):
                preparers.append(model.preparer(step, max_overruns=MAX_OVERRUNS))
                on_error.callback(preparers[-1].close)
            seen = look()
            on_error.pop_all()
        self._seen = seen.columns
        self._opening = JobOpening(
            job=settled.job,
            date=dated.date,
            found=found,
            sources=seen.sources,
            preparers=tuple(preparers),
            parts=settled.parts,
        )

    def is_settled(self, timeout_s: float) -> bool:
        """Waits at most so long for the tokenizer."""
        return self._opening.is_settled(timeout_s)

    def found(self) -> Preflight:
        """Waits for the tokenizers, and fits the task to them.

        Raises:
            SpecError: a tokenizer cannot be used, the task does not fit, or two columns of the output have one name.
        """
        preparers, places = self._opening.preparers, self._spec.places
        for number, preparer in enumerate(preparers):
            with problems_at(places, (*model_at(number, places), "path")):
                preparer.load()
        with problems_at(places, ("task",)):
            opened = self._opening.finish()
        check_result_names(
            self._spec, self._seen, [field.name for field in result_columns(opened.job, opened.fitted.facts)]
        )
        found = Preflight(opened=opened, preparers=preparers)
        if self._on_found is not None:
            self._on_found(found)
        return found

    def finish(self) -> OpenedJob:
        """What `found` has opened.

        Raises:
            SpecError: as `found`.
        """
        return self.found().opened

    def close(self) -> None:
        """Ends the process that reads the tokenizer."""
        self._opening.close()


def _found_models(spec: LoadedSpec) -> Iterator[FoundModel]:
    """The checkpoint of each step, which can be loaded as the spec says."""
    places = spec.places
    for number, step in enumerate(spec.job.steps):
        engine_at = partial(engine_key, number, places=places)
        at = model_at(number, places)
        config, checkpoint = check_model(step.model, step.engine, places, model_at=at, engine_at=engine_at)
        yield FoundModel(checkpoint=checkpoint, config=config)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsSeen:
    """The columns at the head of a file; `is_all` unless others may follow, as in JSONL."""

    names: tuple[str, ...]
    place: str
    is_all: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSeen:
    """The files of the input, and the columns at the head of the first that has any."""

    sources: Sources
    columns: ColumnsSeen


def _seen_in(spec: LoadedSpec) -> InputSeen:
    """What there is to read, once the output can be written.

    Raises:
        SpecError: something is wrong with the one or the other.
    """
    job, places = spec.job, spec.places
    check_output(spec)
    with problems_at(places, ("input", "schema")):
        parse_types(job.input.schema or {})
    with problems_at(places, ("output", "path")):
        check_apart(job.input, job.output)
    with problems_of_input(spec):
        sources = find_sources(job.input)
        first = next((source for source in sources.files if source.size), sources.files[0])
        seen = _columns(first, Storage.of(job.input))
    check_named_columns(spec, seen)
    return InputSeen(sources=sources, columns=seen)


def _columns(source: SourceFile, storage: Storage) -> ColumnsSeen:
    format = FORMATS[source.format]
    try:
        with errors_of_file(source.path):
            seen = format.columns_at_head(storage, source.path)
    except SourceError as error:
        raise PlanError(
            what_is_wrong(storage, format, source.path, source.size) or str(error), path=source.path
        ) from error
    names = tuple(dict.fromkeys((*seen.names, *folder_values(source.path))))
    return ColumnsSeen(names=names, place=source.path, is_all=seen.is_all)


def check_named_columns(spec: LoadedSpec, seen: ColumnsSeen) -> None:
    """Compares the input's columns with those that the spec names.

    Raises:
        SpecError: a column is missing.
    """
    if not seen.is_all:
        return
    has = f"{seen.place} has {shown_names(seen.names) or 'no columns'}"
    problems = [
        spec.places.problem(path, f"the input has no column {column!r}; {has}{column_hint(column, seen.names)}")
        for path, column in spec.named_columns
        if column not in seen.names
    ]
    if problems:
        raise SpecError(problems)


def check_result_names(spec: LoadedSpec, seen: ColumnsSeen, result_names: Sequence[str]) -> None:
    """Compares the columns that the spec carries with the result columns.

    Raises:
        SpecError: two have one name.
    """
    job = spec.job
    carried = seen.names if job.input.columns is None else job.input.columns
    taken = [name for name in carried if name in result_names]
    if taken:
        where = ("output", "prefix") if job.output.prefix else ("output",)
        text = f"the input's column {', '.join(taken)} has the name of a result column; set output.prefix, such as prefix: out_"
        raise SpecError([spec.places.problem(where, text)])
