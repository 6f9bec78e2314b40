"""The graph of a run, put together: three operators over Ray Data, and two more for each further step of a cascade; from the first to
the last, a block is one unit.

    source             tasks     read + prepare                 pipelines.graph.read_stage
    engine             one actor requests -> answers            pipelines.graph.engine_stage
    [hand over         tasks     answers -> requests            pipelines.graph.hand_over_stage
    engine]            one actor requests -> answers
    finish + commit    tasks     answers -> files -> outcome    pipelines.graph.finish_stage

The engines are not Ray Data's actors: the driver owns them (`actors.engine.owner`), and the engine
stage asks them.

Ray Data merges small blocks and cuts large ones as it sees fit, and runs neighbouring operators in one process where it can. Both are
switched off here: the target size of a block is one byte, which any unit exceeds, and the engine stage never asks for as many CPUs as a
task that reads.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionOptions, ExecutionResources

from actors.engine.sizing import Bounds
from models.engine.options import BATCH_WINDOW
from pipelines.cluster.connect import ASKING_CPUS, Room
from pipelines.graph.engine_stage import AskEngines
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.hand_over_stage import HandOver
from pipelines.graph.read_stage import ReadSettings, UnitSource
from pipelines.job import Job
from pipelines.ledger.permit import Permit, PermitOfBegun
from pipelines.rows.unit import Unit
from pipelines.units.planning import unit_rows_of

READ_AHEAD_BYTES = 512 * 1024**2
"""What an engine may have lying ready in the object store, before it and behind it."""


WAITING_EACH = 2
"""Units for each engine that wait in line, beside those that it has: Ray Data takes longer to bring the next than an engine takes over a
small one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """What each operator of a run is made from; `hand_over` stands between the steps of a cascade."""

    read: ReadSettings
    conclude: FinishAndCommit
    hand_over: tuple[HandOver, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """The engines of a step: their names begin with `prefix`, and there are as many as `bounds` says."""

    prefix: str
    bounds: Bounds

    @property
    def max_calls(self) -> int:
        """Units that may be on their way to all of them, or with them."""
        return self.bounds.most * (self.bounds.calls_each + WAITING_EACH)


def engines_for(job: Job, room: Room, num_units: int) -> Bounds:
    """How many engines there may be for `num_units` units, and how many units each is given at a
    time."""
    most = min(room.max_replicas, max(1, num_units))
    return Bounds(least=min(room.replicas, most), most=most, calls_each=fair_calls(job, room, num_units))


def build_graph(
    room: Room,
    stages: Stages,
    units: Callable[[], Iterable[Unit]],
    *,
    num_units: int,
    fleets: Sequence[Fleet],
) -> Dataset:
    """The dataset whose execution computes and commits `num_units` units; `units` gives them anew at each call. `fleets` are the engines
    of each step, `room` is what they leave."""
    source = UnitSource(stages.read, units, num_units)
    committer = stages.read.permit.committer
    with DataContext.current(_context(room, fleets)):
        graph: Any = ray.data.read_datasource(source, override_num_blocks=source.num_tasks, num_cpus=room.read_cpus)
        graph = _asking(graph, fleets[0], stages.read.permit)
        for hand_over, fleet in zip(stages.hand_over, fleets[1:], strict=True):
            graph = graph.map_batches(hand_over, batch_size=None, batch_format="pyarrow", num_cpus=room.commit_cpus)
            graph = _asking(graph, fleet, PermitOfBegun(committer=committer))
        whole: Dataset = graph.map_batches(
            stages.conclude, batch_size=None, batch_format="pyarrow", num_cpus=room.commit_cpus
        )
        return whole


def _asking(graph: Any, fleet: Fleet, permit: Permit | PermitOfBegun) -> Any:
    """The graph with the operator behind it that asks these engines."""
    return graph.map_batches(
        AskEngines,
        fn_constructor_args=(fleet.prefix, fleet.bounds.calls_each, permit),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=ASKING_CPUS,
        compute=ActorPoolStrategy(
            size=1,
            max_concurrent_calls_per_actor=fleet.max_calls,
            max_tasks_in_flight_per_actor=fleet.max_calls,
        ),
    )


def concurrent_calls(job: Job) -> int:
    """Units in one engine at a time. A generating engine is given the rows of a window, whose units
    may all end together, and as many more as it has sequences, so that none is idle meanwhile; an
    engine that scores computes one unit while the next are taken in."""
    if job.task.calls_api or any(task.generates for task in job.task.parts().values()):
        num_rows = (BATCH_WINDOW + 1) * job.engine.max_num_seqs
        return math.ceil(num_rows / unit_rows_of(job)) + 2
    return 3


def fair_calls(job: Job, room: Room, num_units: int) -> int:
    """Units that an engine is given at a time: `concurrent_calls`, and where there is less to do than all engines could take, no more
    than its share, so that the first to be ready does not take the work of those that follow."""
    return min(concurrent_calls(job), math.ceil(num_units / room.max_replicas))


def _context(room: Room, fleets: Sequence[Fleet]) -> DataContext:
    """Settings of this dataset alone. The engines are not its own."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(
            cpu=room.free_cpus,
            object_store_memory=READ_AHEAD_BYTES * sum(fleet.bounds.most for fleet in fleets),
        ),
        preserve_order=False,
    )
    context.execution_no_progress_timeout_s = (
        -1
    )  # a large unit may take an hour; engine deaths are watched by the driver
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None
    context.issue_detectors_config.detectors = []
    return context
