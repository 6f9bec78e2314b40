"""A job that is opened: its checkpoint is found and its version known, its task is fitted to it, its input is listed.

    with closing(JobOpening.of(job, today)) as opening:    # a process of its own begins to read the tokenizer
        ...                                                # what takes time as well
        opened = opening.finish()

That is done once, by the check of a job before it runs, or by the run itself.
"""

import contextlib
import datetime as dt
from dataclasses import dataclass, replace
from typing import Protocol, Self

from models.checkpoint.found import FoundCheckpoint
from models.config.model_config import ModelConfig
from pipelines.job import Job
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.unit_steps.isolated_work import FittedTask
from pipelines.units.listing import Sources, find_sources
from pipelines.units.overlap import check_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedJob:
    """What the driver and the workers know before anything is planned; the engines alone load the checkpoint's weights.

    `job` has the version of its checkpoint, and the date that it was given, or none: that is part of what tells two runs apart.
    `date` is what chat templates take for today all the same. `checkpoint` is where its description is, `config` what that says.
    """

    job: Job
    date: dt.date | None
    checkpoint: FoundCheckpoint
    config: ModelConfig
    fitted: FittedTask
    sources: Sources

    @property
    def dated_job(self) -> Job:
        """The job as it is computed."""
        return replace(self.job, date=self.date)

    def on(self, date: dt.date | None) -> Self:
        """The same job on another date."""
        if date == self.date:
            return self
        dated = replace(self.job, date=date)
        with contextlib.closing(IsolatedPreparer(dated, self.checkpoint.folder, self.config)) as preparer:
            return replace(self, date=date, fitted=preparer.fitted)


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
    """An opening whose input is listed, and whose `preparer` reads the tokenizer; `job` and `date` are those of `OpenedJob`."""

    job: Job
    date: dt.date | None
    checkpoint: FoundCheckpoint
    config: ModelConfig
    sources: Sources
    preparer: IsolatedPreparer

    @classmethod
    def of(cls, job: Job, today: dt.date | None) -> Self:
        """Begins to open a job. `today` is the date of one that has none.

        Raises:
            PlanError: the output is within the input, or there is no input.
            ModelError: the checkpoint cannot be used.
        """
        check_apart(job.input, job.output)
        sources = find_sources(job.input)
        checkpoint = job.model.find("description")
        config = ModelConfig.from_pretrained(checkpoint.folder)
        pinned = pinned_to(job, checkpoint)
        dated = pinned.dated(today)
        return cls(
            job=pinned,
            date=dated.date,
            checkpoint=checkpoint,
            config=config,
            sources=sources,
            preparer=IsolatedPreparer(dated, checkpoint.folder, config),
        )

    def is_settled(self, timeout_s: float) -> bool:
        return self.preparer.is_settled(timeout_s)

    def finish(self) -> OpenedJob:
        """Waits for the tokenizer, and fits the task to it.

        Raises:
            TokenizerError: the tokenizer cannot be used.
            TaskError: the task cannot be run on this checkpoint.
        """
        return OpenedJob(
            job=self.job,
            date=self.date,
            checkpoint=self.checkpoint,
            config=self.config,
            fitted=self.preparer.fitted,
            sources=self.sources,
        )

    def close(self) -> None:
        self.preparer.close()


def pinned_to(job: Job, checkpoint: FoundCheckpoint) -> Job:
    """The job with the version of its checkpoint that was found."""
    return replace(job, model=replace(job.model, version=checkpoint.version))
