"""What a job would cost: how much there is, the tokens of a sample, the memory it needs, and its time from a short probe.

    estimates = estimate_job(job, opened_steps, sources, map_tasks=map_here)

The probe runs rows of some units through the engine a run would use, in this process (`pipelines.probe`). Nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from models.config.model_config import ModelConfig
from models.engine.scoring.cache_sizes import CacheSizes
from models.engine.shard_processes import SCORED_TOKENS
from models.loading.footprint import footprint
from models.weights.weights import Checkpoint
from pipelines.cluster.connect import Room
from pipelines.cluster.engine_settings import engine_settings
from pipelines.cost import Cost, cost_of
from pipelines.errors import OverrunsError, SourceError
from pipelines.graph.graph import concurrent_calls
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.probe import Probe, probe_engine
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.sample import Sample, UnitPicker, UnitPreparer, rows_of, sample_rows
from pipelines.task_base.requests import ModelRequest
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.listing import Sources
from pipelines.units.planning import MapTasks, Plan, plan_units, unit_rows_of
from pipelines.units.reading import UnitReader
from pipelines.units.unit_rows import settled_unit_rows

SAMPLE_UNITS = 32
SAMPLE_ROWS = 1000

PROBE_S = 12.0
"""What the probe's batches take, about: two of them at least tell what a step costs apart from what its rows do."""

PROBE_UNITS = 4
PROBE_UNIT_ROWS = 256
"""The first rows of so many units all over the input are probed, as neighbours share what the rows of a run's units do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one shard of an engine: its weights as loaded, and the caches (keys, values, recurrent states) of `max_num_seqs`
    sequences of typical and of full length.

    A single-pass task keeps those of what prompts begin with in common.
    """

    weights_bytes: int
    typical_cache_bytes: int
    full_cache_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedStep:
    """What a model of the job is estimated from, opened already: its checkpoint, the task on it, and the room of its engines."""

    config: ModelConfig
    checkpoint: Checkpoint
    preparer: IsolatedPreparer
    room: Room


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """All of it for one model. `probe` and `cost` are None if no sampled row can be computed, or rows are calls of the HTTP API, which
    find out what they ask for where they are answered."""

    plan: Plan
    sample: Sample
    memory: Memory
    probe: Probe | None
    cost: Cost | None


def estimate_job(job: Job, steps: Sequence[OpenedStep], sources: Sources, *, map_tasks: MapTasks) -> list[Estimate]:
    """Plans the input as a run would, samples it, and probes an engine of each model, as if that was given all rows.

    Raises:
        PlanError: the input cannot be planned.
        SourceError: the input cannot be read.
        ModelError: a checkpoint cannot be loaded.
    """
    picker = UnitPicker(num_units=SAMPLE_UNITS, seed=job.seed)
    plan_with = partial(
        plan_units,
        sources.files,
        job.input,
        steps[0].preparer.fitted.columns,
        limit=job.limit,
        map_tasks=map_tasks,
    )
    plan = plan_with(unit_rows=unit_rows_of(job), sink=picker)
    storage, declared = Storage.of(job.input), frozenset(job.input.schema or ())
    reader = UnitReader(schema=plan.schema, declared=declared, storage=storage)
    tried = [_tried(*pair, picker.units, reader) for pair in zip(job.steps, steps, strict=True)]
    unit_rows = settled_unit_rows(
        job,
        plan,
        steps[-1].config,  # of a cascade the largest
        replicas=steps[0].room.replicas,
        rows_per_s=lambda: _rows_per_s([probe for _, probe in tried]),
    )
    if unit_rows != plan.unit_rows:
        plan = plan_with(unit_rows=unit_rows, sink=_forget)
    plan = replace(plan, passed_over=sources.passed_over)
    return [
        _estimate(*pair, plan, *found) for pair, found in zip(zip(job.steps, steps, strict=True), tried, strict=True)
    ]


def _tried(step: Job, opened: OpenedStep, units: Sequence[Unit], reader: UnitReader) -> tuple[Sample, Probe | None]:
    """Some rows as a model's engines would get them, and what a few cost one."""
    preparer = opened.preparer
    sample = sample_rows(units, reader, preparer, num_rows=SAMPLE_ROWS)
    rows: Sequence[Sequence[ModelRequest]] = []
    if not step.task.calls_api:  # what a call asks for, the API finds out
        rows = neighbouring_rows(units, reader, preparer)
    settings = engine_settings(step.model, step.engine, preparer.fitted.asked, dedup=step.dedup)
    return sample, probe_engine(settings, rows, budget_s=PROBE_S)


def _rows_per_s(probes: Sequence[Probe | None]) -> float | None:
    """Of a cascade as if every row went all the way, one engine of each step after the other."""
    speeds = [probe.rows_per_s for probe in probes if probe is not None]
    return None if len(speeds) < len(probes) else 1.0 / sum(1.0 / speed for speed in speeds)


def _estimate(step: Job, opened: OpenedStep, plan: Plan, sample: Sample, probe: Probe | None) -> Estimate:
    cost = None
    if probe is not None:
        in_flight = opened.room.max_replicas * concurrent_calls(replace(step, unit_rows=plan.unit_rows))
        cost = cost_of(plan, sample, probe, max_num_seqs=step.engine.max_num_seqs, units_in_flight=in_flight)
    memory = memory_needed(step, opened.config, opened.checkpoint, sample)
    return Estimate(plan=plan, sample=sample, memory=memory, probe=probe, cost=cost)


def neighbouring_rows(
    units: Sequence[Unit], reader: UnitReader, preparer: UnitPreparer
) -> Sequence[Sequence[ModelRequest]]:
    """The requests of the first good rows of some of these units, which are neighbours in their files.

    Raises:
        SourceError: a unit cannot be read.
    """
    picked = units[:: max(1, len(units) // PROBE_UNITS)][:PROBE_UNITS]
    cut = [replace(unit, num_rows=min(PROBE_UNIT_ROWS, unit.num_rows)) for unit in picked]
    rows: list[Sequence[ModelRequest]] = []
    for read in reader.read_units(cut):
        if isinstance(read, UnreadableUnit):
            raise SourceError(read.message)
        try:
            rows += rows_of(preparer.prepare(read))
        except OverrunsError:  # the sample tells of them
            break
    return rows


def _forget(units: Sequence[Unit]) -> None:
    """Counting them is all that is wanted."""
    del units


def memory_needed(job: Job, config: ModelConfig, checkpoint: Checkpoint, sample: Sample) -> Memory:
    """Weights as they are loaded, in their dtype or quantized; caches from the sampled lengths."""
    takes = footprint(
        config,
        checkpoint,
        dtype=job.model.dtype,
        quantization=job.model.quantization,
        num_shards=job.engine.tensor_parallel_size,
    )
    tasks = job.task.parts().values()
    max_tokens = max((task.sampling.max_tokens for task in tasks if task.sampling is not None), default=None)
    if max_tokens is None:
        sizes = CacheSizes.of(
            budget=job.engine.max_num_batched_tokens or SCORED_TOKENS,
            token_bytes=takes.token,
            state_bytes=takes.sequence,
            hidden_bytes=takes.hidden,
        )
        kept = sizes.num_bytes if config.is_causal else 0
        return Memory(weights_bytes=takes.weights, typical_cache_bytes=kept, full_cache_bytes=kept)
    longest = job.engine.max_model_len or config.max_position_embeddings
    typical = min(longest, int(sample.mean_prompt_tokens) + max_tokens)
    return Memory(
        weights_bytes=takes.weights,
        typical_cache_bytes=(typical * takes.token + takes.sequence) * job.engine.max_num_seqs,
        full_cache_bytes=(longest * takes.token + takes.sequence) * job.engine.max_num_seqs,
    )
