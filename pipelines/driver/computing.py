"""Computing what is left to do: the run's engines, the graph that asks them, and whatever ends it."""

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
from ray.exceptions import RayActorError

from actors.engine.owner import ReplicaOwner, ReplicaShape
from pipelines.cluster.connect import Room
from pipelines.cluster.engine_settings import engine_settings
from pipelines.driver.cluster import Connection
from pipelines.driver.ending import Ending, concluded
from pipelines.driver.first_engine import FirstEngine
from pipelines.driver.trial import answers_to_trial
from pipelines.driver.unit_size import SpeedProbe
from pipelines.errors import (
    ClusterLostError,
    EngineError,
    GraphError,
    InternalError,
    LeaseError,
    OutputError,
    OverrunsError,
)
from pipelines.graph.engine_actor import EngineActor, MakeEngine
from pipelines.graph.execution import Execution
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.follow import Follower
from pipelines.graph.graph import Stages, build_graph, engines_for
from pipelines.graph.read_stage import ReadSettings
from pipelines.graph.watch import EngineWatch
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.ledger.attempts import Attempts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.permit import Permit
from pipelines.ledger.progress import Progress
from pipelines.ledger.tally import Tally
from pipelines.opened import OpenedJob
from pipelines.rows.unit import Unit
from pipelines.units.planning import Plan
from pipelines.units.reading import UnitReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Computation:
    """A job that is computed into a ledger. `make_engine` makes what answers requests, in the engines' processes."""

    opened: OpenedJob
    ledger: Ledger
    make_engine: MakeEngine
    show: Callable[[Progress], None]

    @contextlib.contextmanager
    def engines(self, room: Room, tally: Tally | None) -> Iterator[ReplicaOwner]:
        """The run's engines, as many as it has at least. They load while the input is planned, if it is not yet (`tally` is None)."""
        job, ledger, attempts = self._job, self.ledger, self._attempts
        attempts.clear()
        settings = engine_settings(job.model, job.engine, self.opened.fitted.asked, dedup=job.dedup)
        make_engine = self.make_engine
        if job.engine.service is not None:
            from pipelines.graph.service_client import find_model, service_engine  # Serve takes a second to import

            make_engine = partial(service_engine, find_model(job.engine.service, settings))
        shape = ReplicaShape(size=room.num_shards, cpus=room.engine_cpus, gpus=room.engine_gpus, packing=room.packing)
        # the driver may have had other runs into the same folder before
        name = f"{job.name}/{ledger.lease.token.epoch}-{secrets.token_hex(4)}"
        arguments = (settings, attempts, make_engine)
        try:
            with ReplicaOwner(name, shape, EngineActor, arguments, timeout_s=job.engine.step_timeout_s) as engines:
                engines.start(room.replicas if tally is None else engines_for(job, room, tally.num_pending).least)
                yield engines
        finally:
            if ledger.record is None:  # nothing is planned, so nothing stays
                with contextlib.suppress(OutputError):
                    attempts.clear()

    def rows_per_s(self, cluster: Connection, engines: ReplicaOwner, plan: Plan, units: Sequence[Unit]) -> float | None:
        """Rows of these units that an engine computes in a second, while nothing is committed yet; None if that cannot be told.

        Raises:
            ClusterLostError: the Ray cluster is gone.
            LeaseError: the lease is lost.
        """
        engine = FirstEngine(engines=engines, look=partial(self._look, cluster))
        probe = SpeedProbe(read=self._read_settings(plan.schema), read_cpus=cluster.room.read_cpus, engine=engine)
        with cluster.chatter.native_stderr():
            return probe.rows_per_s(units)

    def ask_trial(self, cluster: Connection, engines: ReplicaOwner) -> tuple[float, ...] | None:
        """What the task is told by what it asks before all rows; None if that is nothing.

        Raises:
            TaskError: the model has no answer that is one.
            EngineError, LeaseError, ClusterLostError: whatever else ends a run.
        """
        fitted, watch = self.opened.fitted, EngineWatch(self._attempts)
        if not fitted.trial:
            return None

        def look() -> None:
            self._look(cluster)
            watch.look()
            if engines.has_lost_one:
                raise EngineError(f"an engine failed: {watch.last_cause()}")

        try:
            answers = answers_to_trial(fitted.trial, FirstEngine(engines=engines, look=look))
        except RayActorError as error:  # it is gone for good before `look` has heard of it
            raise EngineError(f"an engine failed: {watch.last_cause()}") from error
        return self.opened.job.task.found_in(answers)

    def compute(self, tally: Tally, cluster: Connection, engines: ReplicaOwner) -> Ending:
        """Runs the graph over what is left to do."""
        ledger, room = self.ledger, cluster.room
        job = self._job
        attempts = self._attempts
        watch = EngineWatch(attempts)
        follower = Follower(ledger, tally, engines, watch, cluster.watch, max_failed=job.max_failed, show=self.show)
        survey = tally.survey
        bounds = engines_for(job, room, tally.num_pending)
        engines.size_within(bounds)
        graph = build_graph(
            room,
            self._stages(),
            lambda: ledger.pending_units(survey),
            num_units=tally.num_pending,
            engines=engines.prefix,
            bounds=bounds,
        )
        try:
            with cluster.chatter.native_stderr():
                execution = Execution(graph)
            with execution:
                follower.follow(execution)
        except (ClusterLostError, EngineError, InternalError, OutputError, OverrunsError, LeaseError) as error:
            return Ending(exit_status=1, message=str(error))
        except GraphError as error:
            logger.info("Ray gave the graph up; its messages are in %s", cluster.chatter.path, exc_info=True)
            cause = watch.last_cause()
            return Ending(exit_status=1, message=str(error) if cause is None else f"an engine failed: {cause}")
        finally:
            follower.show_now()
        engines.end()
        attempts.clear()
        return concluded(job, ledger, tally, is_over=follower.is_draining)

    def _look(self, cluster: Connection) -> None:
        """Raises what ends the run whatever its engines do."""
        cluster.watch.check()
        self.ledger.lease.check()

    @property
    def _job(self) -> Job:
        """The job with the unit size of its plan, once it is planned."""
        job, record = self.opened.job, self.ledger.record
        return job if record is None else replace(job, unit_rows=record.plan.unit_rows)

    @property
    def _attempts(self) -> Attempts:
        return Attempts(self.ledger.store, self.ledger.lease.token.epoch)

    def _stages(self) -> Stages:
        ledger = self.ledger
        assert ledger.record is not None, "stages are made once the run is planned"
        return Stages(
            read=self._read_settings(ledger.record.schema),
            conclude=FinishAndCommit(
                job=self._informed(ledger.record.trial), facts=self.opened.fitted.facts, committer=ledger.committer()
            ),
        )

    def _informed(self, trial: Sequence[float] | None) -> Job:
        """The job whose task knows what it was told before all rows."""
        job = self.opened.dated_job
        return job if trial is None else replace(job, task=job.task.with_found(trial))

    def _read_settings(self, schema: pa.Schema) -> ReadSettings:
        job = self.opened.dated_job
        reader = UnitReader(schema=schema, declared=frozenset(job.input.schema or ()), storage=Storage.of(job.input))
        return ReadSettings(job=job, reader=reader, permit=Permit(committer=self.ledger.committer()))
