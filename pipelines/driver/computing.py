"""Computing what is left to do: the run's engines, the graph that asks them, and whatever ends it."""

import contextlib
import logging
import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
from ray.exceptions import RayActorError

from actors.engine.owner import ReplicaOwner, ReplicaShape
from actors.work import Asked
from pipelines.cluster.connect import Room
from pipelines.cluster.engine_settings import engine_settings
from pipelines.driver.assignment import Assignment
from pipelines.driver.cluster import Connection
from pipelines.driver.ending import Ending, concluded
from pipelines.driver.first_engine import FirstEngine
from pipelines.driver.fleets import Fleets
from pipelines.driver.trial import answers_to_trial
from pipelines.driver.unit_size import SpeedProbe
from pipelines.errors import (
    ClusterLostError,
    FleetError,
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
from pipelines.graph.hand_over_stage import HandOver
from pipelines.graph.read_stage import ReadSettings
from pipelines.graph.watch import EngineWatch
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.ledger.attempts import Attempts
from pipelines.ledger.ledger import Ledger
from pipelines.ledger.permit import Permit
from pipelines.ledger.progress import Progress
from pipelines.ledger.tally import CountsUnits, Tally
from pipelines.opened import OpenedJob
from pipelines.rows.unit import Unit
from pipelines.units.planning import Plan
from pipelines.units.reading import ReadsUnits, UnitReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Computation:
    """A job that is computed into a ledger. `make_engine` makes what answers requests, in the engines' processes."""

    opened: OpenedJob
    ledger: Ledger
    make_engine: MakeEngine
    show: Callable[[Progress], None]

    @contextlib.contextmanager
    def engines(self, rooms: Sequence[Room], tally: CountsUnits | None) -> Iterator[Fleets]:
        """The run's engines, as many as it has at least of each step. They load while the input is planned, if it is not yet (`tally` is
        None)."""
        attempts = self._attempts
        attempts.clear()
        try:
            with contextlib.ExitStack() as stack:
                owners = []
                for step, model, room in zip(self._job.steps, self.opened.models, rooms, strict=True):
                    owner = stack.enter_context(self._owner(step, model.fitted.asked, room))
                    owner.start(room.replicas if tally is None else engines_for(step, room, tally.num_pending).least)
                    owners.append(owner)
                yield Fleets(owners=tuple(owners))
        finally:
            if self.ledger.record is None:  # nothing is planned, so nothing stays
                with contextlib.suppress(OutputError):
                    attempts.clear()

    def _owner(self, job: Job, asked: Asked, room: Room) -> ReplicaOwner:
        """What owns the engines of a step."""
        settings = engine_settings(job.model, job.engine, asked, dedup=job.dedup)
        make_engine = self.make_engine
        if job.engine.service is not None:
            from pipelines.graph.service_client import find_model, service_engine  # Serve takes a second to import

            make_engine = partial(service_engine, find_model(job.engine.service, settings))
        shape = ReplicaShape(size=room.num_shards, cpus=room.engine_cpus, gpus=room.engine_gpus, packing=room.packing)
        # the driver may have had other runs into the same folder before
        name = f"{job.name}/{self.ledger.lease.token.epoch}-{secrets.token_hex(4)}"
        arguments = (settings, self._attempts, make_engine)
        return ReplicaOwner(name, shape, EngineActor, arguments, timeout_s=job.engine.step_timeout_s)

    def rows_per_s(self, cluster: Connection, fleets: Fleets, plan: Plan, units: Sequence[Unit]) -> float | None:
        """Rows of these units that an engine computes in a second, while nothing is committed yet; None if that cannot be told. Of a
        cascade as if every row went all the way, one engine of each step after the other.

        Raises:
            ClusterLostError: the Ray cluster is gone.
            LeaseError: the lease is lost.
        """
        look, read = partial(self._look, cluster), self._read_settings(self.reader(plan.schema))
        row_s = 0.0
        with cluster.chatter.native_stderr():
            for step, engines in zip(read.job.steps, fleets.owners, strict=True):
                engine = FirstEngine(engines=engines, look=look)
                probe = SpeedProbe(read=replace(read, job=step), read_cpus=cluster.rooms[-1].read_cpus, engine=engine)
                speed = probe.rows_per_s(units)
                if speed is None:
                    return None
                row_s += 1.0 / speed
        return 1.0 / row_s

    def ask_trial(self, cluster: Connection, fleets: Fleets) -> tuple[float, ...] | None:
        """What the task is told by what it asks before all rows; None if that is nothing. Of a cascade what it is told by each model, one
        behind the other.

        Raises:
            TaskError: the model has no answer that is one.
            FleetError, LeaseError, ClusterLostError: whatever else ends a run.
        """
        trials = [model.fitted.trial for model in self.opened.models]
        watch = EngineWatch(self._attempts)
        if not any(trials):
            return None

        def look() -> None:
            self._look(cluster)
            watch.look()
            if fleets.has_lost_one:
                raise FleetError(f"an engine failed: {watch.last_cause()}")

        numbers: list[float] = []
        try:
            for trial, engines in zip(trials, fleets.owners, strict=True):
                answers = answers_to_trial(trial, FirstEngine(engines=engines, look=look))
                numbers += self.opened.job.task.found_in(answers)
        except RayActorError as error:  # it is gone for good before `look` has heard of it
            raise FleetError(f"an engine failed: {watch.last_cause()}") from error
        return tuple(numbers)

    def compute(self, tally: Tally, cluster: Connection, fleets: Fleets) -> Ending:
        """Runs the graph over what is left to do."""
        ledger, job = self.ledger, self._job
        assert ledger.record is not None, "a run computes once it is planned"
        assignment = Assignment(
            units=lambda: ledger.pending_units(tally.survey),
            reader=self.reader(ledger.record.schema),
            committer=ledger.committer(),
            tally=tally,
            max_failed=job.max_failed,
            trial=ledger.record.trial,
            conclude=lambda is_over: concluded(job, ledger, tally, is_over=is_over),
        )
        return self.carry_out(assignment, cluster, fleets)

    def carry_out(self, assignment: Assignment, cluster: Connection, fleets: Fleets) -> Ending:
        """Runs the graph over what is to be done."""
        ledger, rooms, tally = self.ledger, cluster.rooms, assignment.tally
        job = self._job
        attempts = self._attempts
        watch = EngineWatch(attempts)
        follower = Follower(
            ledger, tally, fleets, watch, cluster.watch, max_failed=assignment.max_failed, show=self.show
        )
        bounds = [engines_for(step, room, tally.num_pending) for step, room in zip(job.steps, rooms, strict=True)]
        graph = build_graph(
            rooms[-1],
            self._stages(assignment),
            assignment.units,
            num_units=tally.num_pending,
            fleets=fleets.size_within(bounds),
        )
        try:
            with cluster.chatter.native_stderr():
                execution = Execution(graph)
            with execution:
                follower.follow(execution)
        except (ClusterLostError, FleetError, InternalError, OutputError, OverrunsError, LeaseError) as error:
            return Ending(exit_status=1, message=str(error))
        except GraphError as error:
            logger.info("Ray gave the graph up; its messages are in %s", cluster.chatter.path, exc_info=True)
            cause = watch.last_cause()
            return Ending(exit_status=1, message=str(error) if cause is None else f"an engine failed: {cause}")
        finally:
            follower.show_now()
        fleets.end()
        attempts.clear()
        return assignment.conclude(follower.is_draining)

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

    def _stages(self, assignment: Assignment) -> Stages:
        read = self._read_settings(assignment.reader)
        *earlier, last = self._informed(assignment.trial)
        facts = [model.fitted.facts for model in self.opened.models]
        packed = pickle.dumps(read)
        return Stages(
            read=read,
            hand_over=tuple(
                HandOver(read=packed, step=number, job=step, facts=of_step, until=bound)
                for number, (step, of_step, bound) in enumerate(zip(earlier, facts, read.job.bounds, strict=False))
            ),
            conclude=FinishAndCommit(
                job=last,
                facts=facts[-1],
                committer=assignment.committer,
                names=read.job.step_names if read.job.cascade else (),
            ),
        )

    def _informed(self, trial: Sequence[float] | None) -> list[Job]:
        """The job of each step, whose task knows what it was told before all rows."""
        steps = self.opened.dated_job.steps
        if trial is None:
            return [*steps]
        each = len(trial) // len(steps)
        return [
            replace(step, task=step.task.with_found(trial[number * each : (number + 1) * each]))
            for number, step in enumerate(steps)
        ]

    def reader(self, schema: pa.Schema) -> UnitReader:
        """What reads the units of a plan with this schema."""
        source = self._job.input
        return UnitReader(schema=schema, declared=frozenset(source.schema or ()), storage=Storage.of(source))

    def _read_settings(self, reader: ReadsUnits) -> ReadSettings:
        permit = Permit(committer=self.ledger.committer())
        return ReadSettings(job=self.opened.dated_job, reader=reader, permit=permit)
