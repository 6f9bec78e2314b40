"""A model of a cascade in this process: rows in, its answers with how sure it is of each out, prepared and finished as in a run."""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from actors.engine.core import EngineCore
from pipelines.cluster.engine_settings import engine_settings
from pipelines.driver.trial import answers_to_trial
from pipelines.job import Job
from pipelines.rows.blocks import packed, unpacked
from pipelines.rows.rows import Answers, PreparedUnit, UnitRows
from pipelines.task_base.requests import work_of
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.unit_steps.steps import SureRows, sure_rows

AT_ONCE: Final = 256
"""Rows that are computed together, at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineHere:
    """An engine of this process, asked as the first engine of a run is."""

    core: EngineCore

    def answers(self, work: bytes, *, retries: int = 0) -> Answers:
        """The answers to packed work."""
        del retries  # a step that fails here ends it all
        began = time.monotonic()
        results = asyncio.run(self.core.compute(unpacked(work)))
        return Answers(results=results, seconds=time.monotonic() - began)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelHere:
    """The model of `job`, which knows what it was told before all rows."""

    job: Job
    preparer: IsolatedPreparer
    engine: EngineHere

    @classmethod
    @contextlib.contextmanager
    def loaded(cls, job: Job, preparer: IsolatedPreparer) -> "Iterator[ModelHere]":
        """Loads the model of one step's `job` while the context is open.

        Raises:
            ModelError: it cannot be loaded.
            TaskError: it gives no answer to what the task asks before all rows.
        """
        fitted = preparer.fitted
        with closing(EngineCore(engine_settings(job.model, job.engine, fitted.asked, dedup=job.dedup))) as core:
            engine = EngineHere(core=core)
            if fitted.trial:
                found = job.task.found_in(answers_to_trial(fitted.trial, engine))
                job = replace(job, task=job.task.with_found(found))
            yield cls(job=job, preparer=preparer, engine=engine)

    def sure(self, places: Sequence[UnitRows]) -> Iterator[SureRows]:
        """What the model says of the rows of each place.

        Raises:
            OverrunsError: rows keep going over the limits of preparing them.
            EngineError: the model failed.
        """
        for group in _grouped(self.preparer.prepare(place) for place in places):
            requests = [request for prepared in group for request in prepared.requests]
            answers = self.engine.answers(packed(work_of("calibrate", requests)))
            end = 0
            for prepared in group:
                begin, end = end, end + len(prepared.requests)
                own = replace(answers, results=answers.results[begin:end])
                yield sure_rows(self.job, self.preparer.fitted.facts, prepared, own)


def _grouped(prepared: Iterable[PreparedUnit]) -> Iterator[list[PreparedUnit]]:
    """Neighbouring units with `AT_ONCE` rows or more together, but for the last."""
    group: list[PreparedUnit] = []
    for each in prepared:
        group.append(each)
        if sum(one.rows.num_rows for one in group) >= AT_ONCE:
            yield group
            group = []
    if group:
        yield group
