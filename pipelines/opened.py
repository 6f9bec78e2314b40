"""A job that is opened: its checkpoint is found and its version known, its task is fitted to it, its input is listed.

    with closing(JobOpening.of(job, today)) as opening:    # a process of its own begins to read the tokenizer
        ...                                                # what takes time as well
        opened = opening.finish()

That is done once, by the check of a job before it runs, or by the run itself. A cascade has several checkpoints, and a process for each.
"""

import contextlib
import datetime as dt
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from models.checkpoint.found import FoundCheckpoint
from pipelines.errors import TaskError
from pipelines.job import Job
from pipelines.parts.settle import PartsOrder, settle_parts
from pipelines.unit_steps.found_model import FoundModel
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.unit_steps.isolated_work import FittedTask
from pipelines.unit_steps.steps_alike import check_steps
from pipelines.units.listing import Sources, find_sources
from pipelines.units.overlap import check_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedModel:
    """A model that rows go to, and the task on it."""

    found: FoundModel
    fitted: FittedTask


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedJob:
    """What the driver and the workers know before anything is planned; the engines alone load the checkpoint's weights.

    `job` has the versions of its checkpoints, and the date that it was given, or none: that is part of what tells two runs apart.
    `date` is what chat templates take for today all the same. `models` has one for each step of a cascade, and one without. The templates
    of its task have its parts where they print them, in the order that `parts` tells; None if it has none.
    """

    job: Job
    date: dt.date | None
    models: tuple[OpenedModel, ...]
    sources: Sources
    parts: PartsOrder | None = None

    @property
    def fitted(self) -> FittedTask:
        """On the model that all rows go to."""
        return self.models[0].fitted

    @property
    def checkpoints(self) -> tuple[FoundCheckpoint, ...]:
        return tuple(model.found.checkpoint for model in self.models)

    @property
    def dated_job(self) -> Job:
        """The job as it is computed."""
        return replace(self.job, date=self.date)

    def on(self, date: dt.date | None) -> Self:
        """The same job on another date."""
        if date == self.date:
            return self
        models = []
        for step, model in zip(replace(self.job, date=date).steps, self.models, strict=True):
            with contextlib.closing(model.found.preparer(step)) as preparer:
                models.append(replace(model, fitted=preparer.fitted))
        return replace(self, date=date, models=tuple(models))


class Opening(Protocol):
    """A job that is being opened while its run begins."""

    def is_settled(self, timeout_s: float) -> bool:
        """Waits at most so long; whether `finish` would return, or raise, at once."""
        ...

    def finish(self) -> OpenedJob:
        """Waits until the job is opened; whatever is wrong with it is raised."""
        ...

    def close(self) -> None:
        """Ends what opening has started. May be called again."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOpening:
    """An opening whose input is listed, and whose `preparers` read the tokenizers; `job`, `date` and `parts` are those of `OpenedJob`,
    `found` and `preparers` have one for each of its models."""

    job: Job
    date: dt.date | None
    found: tuple[FoundModel, ...]
    sources: Sources
    preparers: tuple[IsolatedPreparer, ...]
    parts: PartsOrder | None = None

    @classmethod
    def of(cls, job: Job, today: dt.date | None) -> Self:
        """Begins to open a job. `today` is the date of one that has none.

        Raises:
            PlanError: the output is within the input, there is no input, or it cannot be looked at.
            ModelError: a checkpoint cannot be used.
            OutputError, DamageError: it has parts, and what its output holds cannot be read.
        """
        check_apart(job.input, job.output)
        sources = find_sources(job.input)
        found = tuple(map(FoundModel.of, job.steps))
        settled = settle_parts(pinned_to(job, [model.checkpoint for model in found]), lambda: sources)
        dated = settled.job.dated(today)
        with contextlib.ExitStack() as unless_all:
            preparers = []
            for step, model in zip(dated.steps, found, strict=True):
                preparers.append(model.preparer(step))
                unless_all.callback(preparers[-1].close)
            unless_all.pop_all()
        return cls(
            job=settled.job,
            date=dated.date,
            found=found,
            sources=sources,
            preparers=tuple(preparers),
            parts=settled.parts,
        )

    def is_settled(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        return all(preparer.is_settled(max(0.0, deadline - time.monotonic())) for preparer in self.preparers)

    def finish(self) -> OpenedJob:
        """Waits for the tokenizers, and fits the task to each.

        Raises:
            TokenizerError: a tokenizer cannot be used.
            TaskError: the task cannot be run on a checkpoint, or its answers on them are not alike.
        """
        models = []
        for number, (found, preparer) in enumerate(zip(self.found, self.preparers, strict=True)):
            with _at_step(self.job, number):
                models.append(OpenedModel(found=found, fitted=preparer.fitted))
        check_steps(self.job, [model.fitted.facts for model in models])
        return OpenedJob(job=self.job, date=self.date, models=tuple(models), sources=self.sources, parts=self.parts)

    def close(self) -> None:
        for preparer in self.preparers:
            preparer.close()


@contextlib.contextmanager
def _at_step(job: Job, number: int) -> Iterator[None]:
    """An error at a key of `model` is at that key of the cascade's step `number`."""
    try:
        yield
    except TaskError as error:
        if not (job.cascade and error.place.startswith("model.")):
            raise
        raise TaskError(f"cascade[{number}].{error.place}", error.message) from error


def pinned_to(job: Job, checkpoints: Sequence[FoundCheckpoint]) -> Job:
    """The job with the versions of its checkpoints that were found."""
    first, *others = (
        replace(step.model, version=checkpoint.version) for step, checkpoint in zip(job.steps, checkpoints, strict=True)
    )
    cascade = tuple(replace(each, model=model) for each, model in zip(job.cascade, others, strict=True))
    return replace(job, model=first, cascade=cascade)
