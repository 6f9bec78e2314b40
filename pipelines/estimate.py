"""What a job would cost: how much there is, the tokens of a sample, the memory it needs, and its time from a short probe.

    estimate = estimate_job(job, inputs, map_tasks=map_here, room=room)

The probe runs sampled rows through the engine a run would use, in this process. Nothing is written.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from actors.engine.core import EngineCore
from actors.work import EngineSettings, OnePassAnswer
from models.config.model_config import ModelConfig
from models.engine.scheduling.request import Output
from models.engine.scoring.cache_sizes import CacheSizes
from models.engine.shard_processes import SCORED_TOKENS
from models.loading.footprint import footprint
from models.weights.weights import Checkpoint
from pipelines.cluster.connect import Room
from pipelines.cluster.engine_settings import engine_settings
from pipelines.graph.graph import concurrent_calls
from pipelines.io.inputs import Storage
from pipelines.job import Job
from pipelines.rows.unit import Unit
from pipelines.sample import Sample, UnitPicker, sample_rows
from pipelines.task_base.requests import ModelRequest, work_of
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.listing import Sources
from pipelines.units.planning import MapTasks, Plan, plan_units, unit_rows_of
from pipelines.units.reading import UnitReader
from pipelines.units.unit_rows import settled_unit_rows

SAMPLE_UNITS = 32
SAMPLE_ROWS = 1000
PROBE_S = 8.0
FIRST_PROBE_ROWS = 4
GROWTH = 4


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
class Probe:
    """How fast one engine in this process was: rows and tokens of the last batch, of which
    `cached_tokens` were not computed, and how long loading took."""

    num_rows: int
    seconds: float
    load_s: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Those that were computed."""
        return (self.prompt_tokens + self.completion_tokens - self.cached_tokens) / self.seconds

    @property
    def cached_tokens_per_s(self) -> float:
        return self.cached_tokens / self.seconds

    @property
    def rows_per_s(self) -> float:
        return self.num_rows / self.seconds

    @property
    def completion_tokens_per_row(self) -> float:
        return self.completion_tokens / self.num_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The whole job, extrapolated: its tokens, its time on one engine, and the tokens that a kill would have computed again."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float
    tokens_at_risk: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What an estimate is made from, opened already: the checkpoint, the task on it, the input's files."""

    config: ModelConfig
    checkpoint: Checkpoint
    preparer: IsolatedPreparer
    sources: Sources


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """All of it. `probe` and `cost` are None if no sampled row can be computed, or rows are calls of the HTTP API, which find
    out what they ask for where they are answered."""

    plan: Plan
    sample: Sample
    memory: Memory
    probe: Probe | None
    cost: Cost | None


def estimate_job(job: Job, inputs: Inputs, *, map_tasks: MapTasks, room: Room) -> Estimate:
    """Plans the input as a run would, samples it, and probes an engine of `room`.

    Raises:
        PlanError: the input cannot be planned.
        SourceError: the input cannot be read.
        ModelError: the checkpoint cannot be loaded.
    """
    preparer = inputs.preparer
    picker = UnitPicker(num_units=SAMPLE_UNITS, seed=job.seed)
    plan_with = partial(
        plan_units,
        inputs.sources.files,
        job.input,
        preparer.fitted.columns,
        limit=job.limit,
        map_tasks=map_tasks,
    )
    plan = plan_with(unit_rows=unit_rows_of(job), sink=picker)
    storage, declared = Storage.of(job.input), frozenset(job.input.schema or ())
    reader = UnitReader(schema=plan.schema, declared=declared, storage=storage)
    sample = sample_rows(picker.units, reader, preparer, num_rows=SAMPLE_ROWS)
    rows = [] if job.task.calls_api else sample.rows  # what a call asks for, the API finds out
    probe = probe_engine(
        engine_settings(job.model, job.engine, preparer.fitted.asked, dedup=job.dedup), rows, budget_s=PROBE_S
    )
    unit_rows = settled_unit_rows(
        job,
        plan,
        inputs.config,
        replicas=room.replicas,
        rows_per_s=lambda: None if probe is None else probe.rows_per_s,
    )
    if unit_rows != plan.unit_rows:
        plan = plan_with(unit_rows=unit_rows, sink=_forget)
    in_flight = room.max_replicas * concurrent_calls(replace(job, unit_rows=plan.unit_rows))
    return Estimate(
        plan=replace(plan, passed_over=inputs.sources.passed_over),
        sample=sample,
        memory=memory_needed(job, inputs.config, inputs.checkpoint, sample),
        probe=probe,
        cost=None if probe is None else cost_of(plan, sample, probe, units_in_flight=in_flight),
    )


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


def probe_engine(settings: EngineSettings, rows: Sequence[Sequence[ModelRequest]], *, budget_s: float) -> Probe | None:
    """Loads the engine and runs sampled rows through it for about `budget_s` seconds; None if there is no row to run.

    Batches grow while the next one fits in what is left of the budget, and the speed is the last one's.

    Raises:
        ModelError: the checkpoint cannot be loaded.
    """
    asked = [requests for requests in rows if requests]
    if not asked:
        return None
    start = time.monotonic()
    engine = EngineCore(settings)
    load_s = time.monotonic() - start
    try:
        return _last_of(_batches(engine, asked, load_s), budget_s)
    finally:
        engine.close()


def _last_of(probes: Iterator[Probe], budget_s: float) -> Probe:
    """Goes on while the next batch, which is `GROWTH` times as large, would not go over the budget."""
    spent_s = 0.0
    for probe in probes:
        last = probe
        spent_s += probe.seconds
        if spent_s + GROWTH * probe.seconds > budget_s:
            break
    return last


def _batches(engine: EngineCore, rows: Sequence[Sequence[ModelRequest]], load_s: float) -> Iterator[Probe]:
    """A first batch to warm up, which counts only if nothing better comes, then ever larger ones; rows are taken at even distances."""
    size = min(FIRST_PROBE_ROWS, len(rows))
    while True:
        picked = rows[:: len(rows) // size][:size]
        requests = [request for row in picked for request in row]
        start = time.monotonic()
        answers = asyncio.run(engine.compute(work_of("probe", requests)))
        seconds = time.monotonic() - start
        yield Probe(
            num_rows=size,
            seconds=max(seconds, 1e-6),
            load_s=load_s,
            prompt_tokens=sum(len(request.token_ids) for request in requests),
            completion_tokens=sum(len(answer.token_ids) for answer in answers if isinstance(answer, Output)),
            cached_tokens=sum(
                answer.num_cached_tokens for answer in answers if isinstance(answer, Output | OnePassAnswer)
            ),
        )
        if size == len(rows):
            return
        size = min(size * GROWTH, len(rows))


def cost_of(plan: Plan, sample: Sample, probe: Probe, *, units_in_flight: int) -> Cost:
    """Sampled means times the rows there are, at the probe's speed."""
    good = len(sample.rows) / sample.num_rows if sample.num_rows else 0.0
    row_tokens = sample.mean_prompt_tokens + good * probe.completion_tokens_per_row
    rows_at_risk = min(plan.num_rows, units_in_flight * plan.unit_rows)
    return Cost(
        prompt_tokens=round(sample.mean_prompt_tokens * plan.num_rows),
        completion_tokens=round(good * probe.completion_tokens_per_row * plan.num_rows),
        seconds=row_tokens * plan.num_rows / (probe.tokens_per_s + probe.cached_tokens_per_s),
        tokens_at_risk=round(rows_at_risk * row_tokens),
    )
