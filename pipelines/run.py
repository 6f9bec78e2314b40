"""A run from its job to its last unit: what the driver does.

    run(job, address=None, on_progress=show) -> RunSummary

The driver opens the job, takes the ledger over, plans if nothing is planned yet, starts the graph and then only listens. It holds
some bytes a unit and no row. Each phase is a module of `pipelines.driver`.
"""

import contextlib
import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from pipelines.cluster.last_resort import LastResort
from pipelines.driver.cluster import RunCluster
from pipelines.driver.computing import Computation
from pipelines.driver.ending import Ending, without_computing
from pipelines.driver.frame import driven
from pipelines.driver.planning import write_plan
from pipelines.errors import FleetError, OutputError
from pipelines.graph.engine_actor import MakeEngine, load_engine
from pipelines.io.open_output import open_store
from pipelines.job import Job
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.progress import Progress, RunSummary, ShowProgress, show_nothing
from pipelines.ledger.run_record import RUN
from pipelines.ledger.tally import Tally
from pipelines.opened import JobOpening, OpenedJob, Opening
from pipelines.units.digest import with_digests

logger = logging.getLogger(__name__)

SETTLE_S: Final = 0.5
"""How long a run waits for its tokenizer before it starts Ray. What is wrong with a job is mostly known by then, and told at once."""


def run(
    job: Job,
    *,
    address: str | None = None,
    on_progress: ShowProgress | None = None,
    last_words: Callable[[str], None] = logger.error,
    today: dt.date | None = None,
    opening: Opening | None = None,
) -> RunSummary:
    """Runs a job, or goes on with it where it stopped, until every unit is committed or the run has to end.

    `address` is local, auto or HOST:PORT of a Ray cluster; None: `RAY_ADDRESS` if set, else a local cluster of its own.
    `last_words` takes the one sentence of a run that could not be ended in order, before this process ends: interrupted in a call that
    does not come back, or without its cluster. `today` is what chat templates are told if neither the job nor an earlier run into the
    same output has a date. `opening` is of this job, where that has begun already.

    Raises:
        PipelineError: the run cannot be started: the output belongs to another run, the input cannot be planned, the task does not fit
            the model, there is no such cluster. What goes wrong later is in the summary.
        ModelError: the checkpoint cannot be used.
        Exception: whatever `opening` finds to be wrong.
    """
    show = on_progress or show_nothing
    return Driver(job, show=show, last_words=last_words, today=today, opening=opening).run(address)


class Driver:
    """Drives one run. `make_engine` makes what answers requests, in the engines' processes."""

    def __init__(
        self,
        job: Job,
        *,
        show: ShowProgress,
        make_engine: MakeEngine = load_engine,
        last_words: Callable[[str], None] = logger.error,
        today: dt.date | None = None,
        opening: Opening | None = None,
    ) -> None:
        self._job, self._show, self._make_engine, self._today = job, show, make_engine, today
        self._opening = opening
        self._last_resort = LastResort(last_words)
        self._tally: Tally | None = None

    def run(self, address: str | None) -> RunSummary:
        """The whole run; see `run`."""
        return driven(self._job, address, self._last_resort, self._run, lambda: self._tally)

    def _run(self, cluster: RunCluster) -> Ending:
        opened = self._open(cluster)
        self._show(Progress(phase="planning", passed_over=opened.sources.passed_over))
        opened = replace(opened, sources=replace(opened.sources, files=with_digests(opened.sources.files)))
        fingerprint = fingerprint_of(opened.job, opened.sources.files, opened.checkpoints)
        cluster.check()
        with (
            Ledger.open(opened.job, fingerprint) as ledger,
            self._last_resort.giving_back(ledger.lease.release),
            contextlib.closing(cluster),  # before the lease is given back
        ):
            return self._go_on(opened, ledger, cluster)

    def _open(self, cluster: RunCluster) -> OpenedJob:
        """Opens the job. Where its tokenizer takes long to read, the cluster of a run that is new is connected to meanwhile; one that goes
        on may have nothing left to do."""
        began = time.monotonic()
        with contextlib.closing(self._opening or JobOpening.of(self._job, self._today)) as opening:
            if not opening.is_settled(SETTLE_S) and self._is_new():
                cluster.check()
                cluster.connect()
            opened = opening.finish()
        logger.info("opened the job in %.1f s", time.monotonic() - began)
        return opened

    def _is_new(self) -> bool:
        try:
            return open_store(self._job.output).read(RUN) is None
        except OutputError:
            return False  # the ledger will say what is wrong

    def _go_on(self, opened: OpenedJob, ledger: Ledger, cluster: RunCluster) -> Ending:
        """What is left to do with a ledger that is ours: all of it, some, or nothing."""
        tally = None
        if ledger.record is not None:
            opened = opened.on(ledger.record.date)
            tally = self._take_stock(ledger)
            ending = without_computing(opened.job, ledger, tally)
            if ending is not None:
                return ending
        computation = Computation(opened=opened, ledger=ledger, make_engine=self._make_engine, show=self._show)
        connection = cluster.connect()
        with computation.engines(connection.rooms, tally) as fleets:
            if tally is None:
                speed = partial(computation.rows_per_s, connection, fleets)
                ask_trial = partial(computation.ask_trial, connection, fleets)
                try:
                    write_plan(opened, ledger, connection.rooms, speed, ask_trial, self._show)
                except FleetError as error:
                    return Ending(exit_status=1, message=str(error))
                tally = self._take_stock(ledger)
            return computation.compute(tally, connection, fleets)

    def _take_stock(self, ledger: Ledger) -> Tally:
        """Counts what earlier runs have committed."""
        assert ledger.record is not None, "stock is taken once the run is planned"
        self._tally = Tally(ledger.record.plan, ledger.survey())
        return self._tally
