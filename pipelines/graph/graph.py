"""The graph of a run, put together: three operators over Ray Data, one unit a block from the first to the last.

    source             tasks     read + prepare                 pipelines.graph.read_stage
    engine             actors    requests -> answers            pipelines.graph.engine_stage
    finish + commit    tasks     answers -> files -> outcome    pipelines.graph.finish_stage

Ray Data merges small blocks and cuts large ones as it sees fit, and runs neighbouring operators in one process where it can. Both are
switched off here: the target size of a block is one byte, which any unit exceeds, and an engine never asks for as many CPUs as a task
that reads.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionOptions, ExecutionResources
from ray.data.context import AutoscalingConfig
from ray.util.annotations import RayDeprecationWarning

from actors.work import EngineSettings
from pipelines.cluster.connect import Room
from pipelines.graph.engine_stage import InferUnits, MakeEngine
from pipelines.graph.finish_stage import FinishAndCommit
from pipelines.graph.read_stage import ReadSettings, UnitSource
from pipelines.job import Job
from pipelines.rows.unit import Unit
from pipelines.units.planning import unit_rows_of

READ_AHEAD_BYTES = 512 * 1024**2
"""What an engine may have lying ready in the object store, before it and behind it."""

FULL = 0.75
"""Of the units that the engines could take, the part from which there may be more engines, up to the most; at half of that there are
fewer, down to the least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """What each operator of a run is made from."""

    read: ReadSettings
    engine: EngineSettings
    make_engine: MakeEngine
    conclude: FinishAndCommit


def build_graph(
    room: Room,
    stages: Stages,
    new_replica: Callable[[], dict[str, Any]],
    units: Callable[[], Iterable[Unit]],
    *,
    num_units: int,
    max_calls: int,
) -> Dataset:
    """The dataset whose execution computes and commits `num_units` units; `units` gives them anew at each call. Each engine has up to
    `max_calls` units, and is started with the Ray options that `new_replica` gives for it."""
    source = UnitSource(stages.read, units, num_units)
    most = min(room.max_replicas, max(1, num_units))
    with DataContext.current(_context(room)), warnings.catch_warnings():
        # the only way to give each engine a name and a group of its own; gone in Ray 2.64
        warnings.filterwarnings("ignore", ".*ray_remote_args_fn", RayDeprecationWarning)
        graph: Dataset = (
            ray.data.read_datasource(source, override_num_blocks=source.num_tasks, num_cpus=room.read_cpus)
            .map_batches(
                InferUnits,
                fn_constructor_args=(stages.engine, stages.read.permit, stages.make_engine),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=room.engine_cpus,
                num_gpus=room.engine_gpus,
                compute=ActorPoolStrategy(
                    min_size=min(room.replicas, most),
                    initial_size=most,
                    max_size=most,
                    max_concurrent_calls_per_actor=max_calls,
                    max_tasks_in_flight_per_actor=max_calls,
                ),
                ray_remote_args_fn=new_replica,
            )
            .map_batches(stages.conclude, batch_size=None, batch_format="pyarrow", num_cpus=room.commit_cpus)
        )
        return graph


def concurrent_calls(job: Job) -> int:
    """Units in one engine at a time. Generation fills the engine's sequences twice over, so that none stands empty while a unit ends;
    one pass computes one unit while the next are taken in."""
    if job.task.generates:
        return math.ceil(2 * job.engine.max_num_seqs / unit_rows_of(job)) + 2
    return 3


def fair_calls(job: Job, room: Room, num_units: int) -> int:
    """Units that an engine is given at a time: `concurrent_calls`, and where there is less to do than all engines could take, no more
    than its share, so that the first to be ready does not take the work of those that follow."""
    return min(concurrent_calls(job), math.ceil(num_units / room.max_replicas))


def _context(room: Room) -> DataContext:
    """Settings of this dataset alone."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(
            cpu=room.cluster_cpus
            - room.max_replicas * (room.num_shards - 1) * room.engine_cpus,  # the other shards are not its own
            object_store_memory=READ_AHEAD_BYTES * room.max_replicas,
        ),
        preserve_order=False,
    )
    context.execution_no_progress_timeout_s = (
        -1
    )  # a large unit may take an hour; engine deaths are watched by the driver
    context.autoscaling_config = AutoscalingConfig(
        actor_pool_util_upscaling_threshold=FULL, actor_pool_util_downscaling_threshold=FULL / 2
    )
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.memory_usage_poll_interval_s = None
    context.issue_detectors_config.detectors = []
    return context
