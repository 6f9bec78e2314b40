"""A run from its job to its last unit: what the driver does.

    run(job, address=None, on_progress=show) -> RunSummary

The driver opens the ledger, plans if nothing is planned yet, starts the graph and then only listens. It holds some bytes a unit and no row.
"""

import contextlib
import datetime as dt
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ray.exceptions import RayError

from actors.engine.owner import ReplicaOwner, ReplicaShape
from pipelines.cluster.connect import Room, check_place, connected, will_start_one
from pipelines.cluster.engine_settings import engine_settings
from pipelines.cluster.interrupts import INTERRUPTED, interrupts
from pipelines.cluster.last_resort import LastResort
from pipelines.cluster.leftovers import end_leftovers
from pipelines.cluster.ray_output import Chatter, quiet_ray
from pipelines.cluster.ray_private import default_temporary_folder
from pipelines.cluster.watch import ClusterWatch, watching_cluster
from pipelines.errors import (
    ClusterLostError,
    EngineError,
    GraphError,
    InternalError,
    LeaseError,
    OutputError,
    OverrunsError,
)
from pipelines.graph.engine_stage import MakeEngine, load_engine
from pipelines.graph.execution import Execution
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.follow import Follower
from pipelines.graph.graph import Stages, build_graph, fair_calls
from pipelines.graph.read_stage import ReadSettings
from pipelines.graph.watch import EngineWatch
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.ledger.attempts import Attempts
from pipelines.ledger.fingerprint import fingerprint_of
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.permit import Permit
from pipelines.ledger.progress import ExitStatus, Progress, RunSummary
from pipelines.ledger.tally import Tally
from pipelines.ledger.unreadable import UNREADABLE
from pipelines.opened import OpenedJob
from pipelines.rows.unit import Unit
from pipelines.tasks.result_names import check_names
from pipelines.units.digest import with_digests
from pipelines.units.plan_on_ray import map_in_tasks
from pipelines.units.planning import Plan, Sink, plan_units, unit_rows_of
from pipelines.units.reading import UnitReader

logger = logging.getLogger(__name__)

ShowProgress = Callable[[Progress], None]


def run(
    job: Job,
    *,
    address: str | None = None,
    on_progress: ShowProgress | None = None,
    last_words: Callable[[str], None] = logger.error,
    today: dt.date | None = None,
    opened: OpenedJob | None = None,
) -> RunSummary:
    """Runs a job, or goes on with it where it stopped, until every unit is committed or the run has to end.

    `address` is local, auto or HOST:PORT of a Ray cluster; None: `RAY_ADDRESS` if set, else a local cluster of its own.
    `last_words` takes the one sentence of a run that could not be ended in order, before this process ends: interrupted in a call that
    does not come back, or without its cluster. `today` is what chat templates are told if neither the job nor an earlier run into the
    same output has a date. `opened` is the job where it was opened before, as it then was.

    Raises:
        PipelineError: the run cannot be started: the output belongs to another run, the input cannot be planned, the task does not fit
            the model, there is no such cluster. What goes wrong later is in the summary.
        ModelError: the checkpoint cannot be used.
    """
    show = on_progress or _show_nothing
    return Driver(job, show=show, last_words=last_words, today=today, opened=opened).run(address)


def _show_nothing(progress: Progress) -> None:
    del progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How a run ended, and in one sentence why."""

    exit_status: ExitStatus
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cluster:
    """The cluster that the driver is connected to."""

    room: Room
    chatter: Chatter
    watch: ClusterWatch


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
        opened: OpenedJob | None = None,
    ) -> None:
        self._job, self._show, self._make_engine, self._today = job, show, make_engine, today
        self._opened = opened
        self._last_resort = LastResort(last_words)
        self._tally: Tally | None = None

    def run(self, address: str | None) -> RunSummary:
        """The whole run; see `run`."""
        with interrupts(self._last_resort) as take_signals:
            try:
                ending = self._run(address, take_signals)
            except (KeyboardInterrupt, SystemExit):  # the second is Ray's answer to a SIGTERM while it connects
                ending = Ending(exit_status=130, message=INTERRUPTED)
            except RayError as error:
                ending = Ending(exit_status=1, message=f"the Ray cluster failed: {str(error).splitlines()[0]}")
        progress = Progress(phase="planning") if self._tally is None else self._tally.progress("running")
        return RunSummary(
            exit_status=ending.exit_status, message=ending.message, output=self._job.output.path, progress=progress
        )

    def _run(self, address: str | None, take_signals: Callable[[], None]) -> Ending:
        opened = self._opened or OpenedJob.of(self._job, self._today)
        self._show(Progress(phase="planning", passed_over=opened.sources.passed_over))
        opened = replace(opened, sources=replace(opened.sources, files=with_digests(opened.sources.files)))
        job = self._job = opened.job
        check_place(address)
        with (
            Ledger.open(job, fingerprint_of(job, opened.sources.files)) as ledger,
            self._last_resort.giving_back(ledger.lease.release),
        ):
            if ledger.record is not None:
                opened = opened.on(ledger.record.date)
            tally = None if ledger.record is None else self._take_stock(ledger)
            if tally is not None and tally.is_over(self._job.max_failed):
                return _crossed(tally)
            if tally is not None and tally.num_pending == 0:
                return self._conclude(ledger, tally)
            with self._cluster(address) as cluster:
                take_signals()
                if tally is None:
                    ledger.write_plan(lambda sink: self._plan(opened, sink), date=opened.date)
                    tally = self._take_stock(ledger)
                return self._compute(ledger, tally, self._stages(ledger, opened), cluster)

    @contextlib.contextmanager
    def _cluster(self, address: str | None) -> Iterator[_Cluster]:
        """Connects to the run's cluster; what a cluster of its own would leave behind is part of the last resort."""
        is_own = will_start_one(address)
        with contextlib.ExitStack() as stack:
            if is_own:
                end_processes = partial(end_leftovers, default_temporary_folder())
                stack.enter_context(self._last_resort.giving_back(end_processes))
            chatter = stack.enter_context(quiet_ray())
            room = stack.enter_context(connected(self._job.engine, address))
            chatter.move_to_session()
            watch = stack.enter_context(watching_cluster(self._last_resort, is_own=is_own))
            yield _Cluster(room=room, chatter=chatter, watch=watch)

    def _plan(self, opened: OpenedJob, sink: Sink) -> Plan:
        job, sources, num_rows = self._job, opened.sources, 0

        def count(units: Sequence[Unit]) -> None:
            nonlocal num_rows
            sink(units)
            num_rows += sum(unit.num_rows for unit in units)
            self._show(Progress(phase="planning", rows_done=num_rows, passed_over=sources.passed_over))

        plan = plan_units(
            sources.files,
            job.input,
            opened.fitted.columns,
            unit_rows=unit_rows_of(job),
            limit=job.limit,
            map_tasks=map_in_tasks,
            sink=count,
        )
        check_names(job, opened.fitted.facts, plan.schema.names)
        return replace(plan, passed_over=sources.passed_over)

    def _take_stock(self, ledger: Ledger) -> Tally:
        """Counts what earlier runs have committed."""
        assert ledger.record is not None, "stock is taken once the run is planned"
        self._tally = Tally(ledger.record.plan, ledger.survey())
        return self._tally

    def _stages(self, ledger: Ledger, opened: OpenedJob) -> Stages:
        job, committer = opened.dated_job, ledger.committer()
        assert ledger.record is not None, "stages are made once the run is planned"
        reader = UnitReader(
            schema=ledger.record.schema,
            declared=frozenset(job.input.schema or ()),
            storage=Storage.of(job.input),
        )
        settings, make_engine = engine_settings(job.model, job.engine, opened.fitted.asked), self._make_engine
        if job.engine.service is not None:
            from pipelines.graph.service_client import find_model, service_engine  # Serve takes a second to import

            make_engine = partial(service_engine, find_model(job.engine.service, settings))
        return Stages(
            read=ReadSettings(job=job, reader=reader, permit=Permit(committer=committer)),
            engine=settings,
            make_engine=make_engine,
            conclude=FinishAndCommit(job=job, facts=opened.fitted.facts, committer=committer),
        )

    def _compute(self, ledger: Ledger, tally: Tally, stages: Stages, cluster: _Cluster) -> Ending:
        """Runs the graph over what is left to do."""
        room, chatter = cluster.room, cluster.chatter
        attempts = Attempts(ledger.store, ledger.lease.token.epoch)
        attempts.clear()
        watch = EngineWatch(attempts)
        follower = Follower(ledger, tally, watch, cluster.watch, max_failed=self._job.max_failed, show=self._show)
        survey = tally.survey
        max_calls = fair_calls(self._job, room, tally.num_pending)
        owner = self._owner(room, ledger.lease.token.epoch, max_calls)
        graph = build_graph(
            room,
            stages,
            owner.new_replica,
            lambda: ledger.pending_units(survey),
            num_units=tally.num_pending,
            max_calls=max_calls,
        )
        try:
            with chatter.native_stderr():
                execution = Execution(graph)
            with owner, execution:
                follower.follow(execution)
        except (ClusterLostError, EngineError, InternalError, OutputError, OverrunsError, LeaseError) as error:
            return Ending(exit_status=1, message=str(error))
        except GraphError as error:
            logger.info("Ray gave the graph up; its messages are in %s", chatter.path, exc_info=True)
            cause = watch.last_cause()
            return Ending(exit_status=1, message=str(error) if cause is None else f"an engine failed: {cause}")
        finally:
            follower.show_now()
        attempts.clear()
        return self._conclude(ledger, tally, is_over=follower.is_draining)

    def _owner(self, room: Room, epoch: int, max_calls: int) -> ReplicaOwner:
        """Who owns this run's replicas; the driver may have had other runs into the same folder before."""
        shape = ReplicaShape(
            size=room.num_shards,
            cpus=room.engine_cpus,
            gpus=room.engine_gpus,
            packing=room.packing,
            max_calls=max_calls,
        )
        name = f"{self._job.name}/{epoch}-{secrets.token_hex(4)}"
        return ReplicaOwner(name, shape, timeout_s=self._job.engine.step_timeout_s)

    def _conclude(self, ledger: Ledger, tally: Tally, *, is_over: bool = False) -> Ending:
        """How a run ends whose graph has come to its end."""
        ledger.sweep(tally.survey)
        ledger.write_unreadable(tally.unreadable)
        if is_over or tally.is_over(self._job.max_failed):
            return _crossed(tally)
        rows = _rows_in(tally)
        if tally.unreadable:
            place = f"{self._job.output.path}/{UNREADABLE}"
            first = tally.unreadable[0].message
            return Ending(
                exit_status=1,
                message=f"{len(tally.unreadable):,} units could not be read, the first because {first}; all are listed in {place}; {rows}",
            )
        if tally.num_pending:
            return Ending(exit_status=1, message=f"{tally.num_pending:,} units were not computed; run again; {rows}")
        return Ending(exit_status=0, message=rows)


def _crossed(tally: Tally) -> Ending:
    """How a run ends that has more dead letters than it may have, whether it computed anything itself or not."""
    return Ending(exit_status=3, message=f"max_failed was crossed: {_rows_in(tally)}; raise max_failed to go on")


def _rows_in(tally: Tally) -> str:
    done = tally.progress("running")
    return f"{done.rows_done:,} of {done.rows_total:,} rows committed, {done.rows_failed:,} of them as dead letters"
