"""The graph of a run, put together: three operators over Ray Data, one unit a block from the first to the last.

    source             tasks     read + prepare                 pipelines.source
    engine             actors    requests -> answers            pipelines.infer
    finish + commit    tasks     answers -> files -> outcome    pipelines.conclude

Ray Data merges small blocks and cuts large ones as it sees fit, and runs neighbouring operators in one process where it can. Both are
switched off here: the target size of a block is one byte, which any unit exceeds, and an engine never asks for as many CPUs as a task
that reads.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionOptions, ExecutionResources

from actors.work import EngineSettings
from pipelines.cluster import Room
from pipelines.conclude import FinishAndCommit
from pipelines.infer import InferUnits, MakeEngine
from pipelines.job import GenerateTask, Job
from pipelines.planning import unit_rows_of
from pipelines.source import ReadSettings, UnitSource
from pipelines.units import Unit

READ_AHEAD_BYTES = 512 * 1024**2
"""What an engine may have lying ready in the object store, before it and behind it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """What each operator of a run is made from."""

    read: ReadSettings
    engine: EngineSettings
    make_engine: MakeEngine
    conclude: FinishAndCommit


def build_graph(job: Job, room: Room, stages: Stages, units: Callable[[], Iterable[Unit]], num_units: int) -> Dataset:
    """The dataset whose execution computes and commits `num_units` units; `units` gives them anew at each call."""
    source = UnitSource(stages.read, units, num_units)
    calls = concurrent_calls(job)
    with DataContext.current(_context(room)):
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
                    size=room.replicas, max_concurrent_calls_per_actor=calls, max_tasks_in_flight_per_actor=calls + 1
                ),
            )
            .map_batches(stages.conclude, batch_size=None, batch_format="pyarrow", num_cpus=room.commit_cpus)
        )
        return graph


def concurrent_calls(job: Job) -> int:
    """Units in one engine at a time. Generation fills the engine's sequences twice over, so that none stands empty while a unit ends;
    one pass computes one unit while the next is taken in."""
    if isinstance(job.task, GenerateTask):
        return math.ceil(2 * job.engine.max_num_seqs / unit_rows_of(job)) + 1
    return 2


def _context(room: Room) -> DataContext:
    """Settings of this dataset alone."""
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1
    context.execution_options = ExecutionOptions(
        resource_limits=ExecutionResources.for_limits(object_store_memory=READ_AHEAD_BYTES * room.replicas),
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
