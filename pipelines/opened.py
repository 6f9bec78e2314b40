"""A job that is opened: its checkpoint is found and its version known, its task is fitted to it, its input is listed.

That is done once, by whoever checks a job before it runs, or by the run itself.
"""

import contextlib
import datetime as dt
from dataclasses import dataclass, replace
from typing import Self

from models.config.model_config import ModelConfig
from pipelines.job import Job
from pipelines.tasks.isolated_preparer import IsolatedPreparer
from pipelines.tasks.isolated_work import FittedTask
from pipelines.units.listing import Sources, find_sources
from pipelines.units.overlap import check_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedJob:
    """What the driver and the workers know before anything is planned; the engines alone load the checkpoint's weights.

    `job` has the version of its checkpoint, and the date that it was given, or none: that is part of what tells two runs apart.
    `date` is what chat templates take for today all the same.
    """

    job: Job
    date: dt.date | None
    fitted: FittedTask
    sources: Sources

    @classmethod
    def of(cls, job: Job, today: dt.date | None) -> Self:
        """Opens a job. `today` is the date of one that has none.

        Raises:
            PipelineError: the output is within the input, there is no input, or the task does not fit the checkpoint.
            ModelError: the checkpoint cannot be used.
        """
        check_apart(job.input, job.output)
        sources = find_sources(job.input)
        dated = replace(job, model=job.model.pinned()).dated(today)
        return cls(job=replace(dated, date=job.date), date=dated.date, fitted=_fit(dated), sources=sources)

    @property
    def dated_job(self) -> Job:
        """The job as it is computed."""
        return replace(self.job, date=self.date)

    def on(self, date: dt.date | None) -> Self:
        """The same job on another date."""
        if date == self.date:
            return self
        return replace(self, date=date, fitted=_fit(replace(self.job, date=date)))


def _fit(job: Job) -> FittedTask:
    folder = job.model.find("description").folder
    with contextlib.closing(IsolatedPreparer(job, folder, ModelConfig.from_pretrained(folder))) as preparer:
        return preparer.fitted
