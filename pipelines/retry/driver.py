"""Retrying dead letters, from an output to its last unit: what the driver does.

    retry(job, RetryAsked(planned=job, selection=Selection(kinds=("too_long",)))) -> RunSummary

It is a run over units that are committed (`pipelines.run`): the output's lease is taken, the input
has to be the one that was planned, and the graph is the same, with a reader that leaves out all
rows but the letters and a committer that puts the unit together anew.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from pipelines.cluster.last_resort import LastResort
from pipelines.driver.assignment import Assignment
from pipelines.driver.cluster import RunCluster
from pipelines.driver.computing import Computation
from pipelines.driver.ending import Ending
from pipelines.driver.frame import driven
from pipelines.errors import FleetError, PlanError, TaskError
from pipelines.graph.engine_actor import MakeEngine, load_engine
from pipelines.io.open_output import open_store
from pipelines.job import Job
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.planned_units import planned_units
from pipelines.ledger.progress import RunSummary, ShowProgress, show_nothing
from pipelines.ledger.run_record import RunRecord, read_record
from pipelines.opened import JobOpening, OpenedJob, Opening
from pipelines.parts.settle import settle_parts
from pipelines.retry.asked import RetryAsked
from pipelines.retry.choice import choose
from pipelines.retry.committer import RetryCommitter
from pipelines.retry.ending import concluded
from pipelines.retry.reader import RetryReader
from pipelines.retry.tally import RetryTally
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.finish import result_columns
from pipelines.units.digest import with_digests

logger = logging.getLogger(__name__)

OF_THE_ROWS: Final = ("input", "output", "seed", "unit_rows", "limit", "date")
"""Parts of a fingerprint that say which rows an output has, and where: no retry changes them."""


def retry(
    job: Job,
    asked: RetryAsked,
    *,
    address: str | None = None,
    on_progress: ShowProgress | None = None,
    last_words: Callable[[str], None] = logger.error,
    opening: Opening | None = None,
    make_engine: MakeEngine = load_engine,
) -> RunSummary:
    """Tries dead letters of the output of `job` again. The arguments are those of
    `pipelines.run.run`.

    Raises:
        PlanError: there is no run in the output.
        SelectionError: the condition cannot be told of a letter.
        PipelineError: the retry cannot be started; see `pipelines.run.run`.
        ModelError: the checkpoint cannot be used.
        Exception: whatever `opening` finds to be wrong.
    """
    driver = RetryDriver(
        job, asked, show=on_progress or show_nothing, last_words=last_words, opening=opening, make_engine=make_engine
    )
    return driver.run(address)


class RetryDriver:
    """Drives one retry."""

    def __init__(
        self,
        job: Job,
        asked: RetryAsked,
        *,
        show: ShowProgress,
        last_words: Callable[[str], None],
        opening: Opening | None,
        make_engine: MakeEngine,
    ) -> None:
        self._job, self._asked, self._show, self._make_engine = job, asked, show, make_engine
        self._opening = opening
        self._last_resort = LastResort(last_words)
        self._tally: RetryTally | None = None

    def run(self, address: str | None) -> RunSummary:
        """The whole retry; see `retry`."""
        return driven(self._job, address, self._last_resort, self._run, lambda: self._tally)

    def _run(self, cluster: RunCluster) -> Ending:
        record = self._planned_record()
        with contextlib.closing(self._opening or JobOpening.of(self._job, record.date)) as opening:
            opened = opening.finish().on(record.date)
        check_alone(opened.job, self._asked.planned, opened.fitted.facts)
        opened.fitted.columns.check(tuple(record.schema.names), f"the plan of {self._job.output.path}")
        opened = replace(opened, sources=replace(opened.sources, files=with_digests(opened.sources.files)))
        computed_with = fingerprint_of(opened.job, opened.sources.files, opened.checkpoints)
        cluster.check()
        with (
            Ledger.open(opened.job, self._identity(opened, record, computed_with)) as ledger,
            self._last_resort.giving_back(ledger.lease.release),
            contextlib.closing(cluster),  # before the lease is given back
        ):
            return self._try_again(opened, ledger, cluster, computed_with)

    def _planned_record(self) -> RunRecord:
        store = open_store(self._job.output)
        record = read_record(store)
        if record is None:
            raise PlanError(f"{store.location} has no run that was planned to its end, so there is nothing to retry")
        return record

    def _identity(self, opened: OpenedJob, record: RunRecord, computed_with: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fingerprint that has to be the one of the output: of the job that it was planned
        with, on the checkpoint and the input as they are now."""
        if self._asked.allows_changes:
            return {**record.fingerprint, **{name: computed_with[name] for name in OF_THE_ROWS}}
        planned = settle_parts(self._asked.planned, lambda: opened.sources).job
        return fingerprint_of(planned, opened.sources.files, opened.checkpoints)

    def _try_again(
        self, opened: OpenedJob, ledger: Ledger, cluster: RunCluster, computed_with: Mapping[str, Any]
    ) -> Ending:
        record = ledger.record
        assert record is not None, "nobody takes a plan away"
        survey = ledger.survey()
        choice = choose(ledger.store, record, survey, self._asked.selection, limit=self._asked.limit)
        tally = self._tally = RetryTally(record.plan, survey, choice)
        if not choice.units:
            return concluded(ledger, survey, tally)
        self._show(tally.progress("starting"))
        computation = Computation(opened=opened, ledger=ledger, make_engine=self._make_engine, show=self._show)
        connection = cluster.connect()
        with computation.engines(connection.rooms, tally) as fleets:
            trial = record.trial
            if self._asked.allows_changes and ledger.generation_of(computed_with) is None:
                try:
                    trial = computation.ask_trial(connection, fleets)
                except FleetError as error:
                    return Ending(exit_status=1, message=str(error))
            generation = ledger.generation(opened.job, computed_with, trial)
            committer = ledger.committer()
            assignment = Assignment(
                units=lambda: (unit for unit in planned_units(ledger.store, record) if unit.index in choice.units),
                reader=RetryReader(
                    reader=computation.reader(record.schema), committer=committer, selection=choice.selection
                ),
                committer=RetryCommitter(committer=committer, selection=choice.selection, generation=generation),
                tally=tally,
                max_failed=None,
                trial=ledger.trial_of(generation),
                conclude=lambda _: concluded(ledger, survey, tally),
            )
            return computation.carry_out(assignment, connection, fleets)


def check_alone(job: Job, planned: Job, facts: TaskFacts) -> None:
    """Looks whether single rows of a job can be computed again, on a checkpoint with these facts,
    into the columns that `planned` has.

    Raises:
        TaskError: they cannot.
    """
    reason = job.task.why_not_alone()
    if reason is not None:
        raise TaskError("task", f"single rows of it cannot be computed again: {reason}")
    before, now = result_columns(planned, facts), result_columns(job, facts)
    if before != now:
        names = " -> ".join(", ".join(field.name for field in fields) for fields in (before, now))
        raise TaskError(
            "task", f"its results have other columns than those that are there ({names}); use a new output.path"
        )
