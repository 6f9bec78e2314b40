"""An estimate as a page of text: counts, a histogram of tokens, memory, time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.show.progress import duration, token_speed
from models.checkpoint.byte_text import byte_text
from pipelines.cost import Cost
from pipelines.estimate import Estimate, Memory
from pipelines.formats.schema import Columns, json_reason
from pipelines.job import Job
from pipelines.parts.settle import PartsOrder
from pipelines.probe import Probe
from pipelines.sample import Sample

BAR_WIDTH = 40
HISTOGRAM_ROWS = 10
MAX_NAMED = 20


def plan_text(
    job: Job,
    estimate: Estimate,
    *,
    classes: str | None = None,
    caution: str | None = None,
    whole: str = "the whole job",
    parts: PartsOrder | None = None,
) -> str:
    """All of it, ready to print; `classes` says what the scores of a checkpoint's own classes will mean, `caution` what to expect
    of the job's few bits a weight, `whole` what the cost is of, `parts` in which order those of the job are."""
    plan = estimate.plan
    beside = [("passed over", str(plan.passed_over))] if plan.passed_over.num_files else []
    sections = [
        [f"{job.name}: the spec is valid"],
        _lines(
            "input",
            [
                ("files", f"{plan.num_files:,}"),
                *beside,
                ("rows", f"{plan.num_rows:,}"),
                ("units", f"{plan.num_units:,} of at most {plan.unit_rows:,} rows"),
                ("bytes", byte_text(plan.num_bytes)),
            ],
        ),
        *_json_columns(job, plan.schema),
        *([] if classes is None else [[f"classes: {classes}"]]),
        *([] if caution is None else [[f"warning: {caution}"]]),
        _call_lines(estimate.sample) if job.task.calls_api else _sample_lines(estimate.sample),
        *([] if parts is None else [_parts_lines(job, parts)]),
        *([] if estimate.sample.prompt is None else [_prompt_lines(estimate.sample.prompt)]),
        _lines(_of_one(job.engine.tensor_parallel_size), _memory_lines(job, estimate.memory)),
    ]
    if estimate.probe is not None and estimate.cost is not None:
        sections.append(_lines("probe, one engine in this process", _probe_lines(job, estimate.probe)))
        sections.append(_lines(f"{whole}, by what the probe cost", _cost_lines(job, estimate.cost, estimate.probe)))
    elif job.task.calls_api:
        sections.append(["Lines of a batch ask for what they like, so there is no estimate of tokens, caches or time."])
    else:
        sections.append(["No sampled row can be computed, so there is no estimate of time."])
    return "\n\n".join("\n".join(section) for section in sections)


def _json_columns(job: Job, schema: pa.Schema) -> list[list[str]]:
    """The columns that Parquet output holds as JSON text, as no Arrow type holds them exactly."""
    reasons = [
        (f"input.schema.{field.name}", reason)
        for field in schema
        if (reason := json_reason(field)) is not None and Columns(carried=job.input.columns).is_needed(field.name)
    ]
    if job.output.format != "parquet" or not reasons:
        return []
    lines = _lines("columns carried as JSON text, where this key gives them no other type", reasons[:MAX_NAMED])
    return [lines if len(reasons) <= MAX_NAMED else [*lines, f"  and {len(reasons) - MAX_NAMED:,} more"]]


def _lines(title: str, values: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in values)
    return [title, *(f"  {name:<{width}}  {value}" for name, value in values)]


def _sample_lines(sample: Sample) -> list[str]:
    lines = [f"prompt tokens a row, {sample.num_rows:,} rows sampled"]
    if sample.prompt_tokens.size:
        mean, longest = sample.prompt_tokens.mean(), sample.prompt_tokens.max()
        middle, p95 = (np.percentile(sample.prompt_tokens, share, method="lower") for share in (50, 95))
        lines += _histogram(sample.prompt_tokens)
        lines.append(f"  mean {mean:,.1f}   median {middle:,}   95% {p95:,}   longest {longest:,}")
    return lines + _failure_lines(sample)


def _parts_lines(job: Job, parts: PartsOrder) -> list[str]:
    """The parts of templates in their order, and what that saves."""
    lines = [f"  {job.parts[number]!r}" for number in parts.order]
    shared = parts.shared
    if shared is None:
        return ["parts, in the order of the run that the output holds", *lines]
    saved = f"{shared.found:.0%} of their text in {shared.num_rows:,} sampled rows is in beginnings that other rows have too"
    return ["parts, in the order that shares most", *lines, f"  {saved}; as given {shared.given:.0%}"]


def _prompt_lines(prompt: str) -> list[str]:
    """All that the model reads for one row."""
    return ["what the model reads for the first row", *(f"  | {line}" for line in prompt.split("\n"))]


def _call_lines(sample: Sample) -> list[str]:
    """Lines of a batch: what can be known before the API has seen them."""
    good = sum(1 for requests in sample.rows if requests)
    return [
        f"requests, {sample.num_rows:,} lines sampled",
        f"  {good:,} of them can be asked",
        *_failure_lines(sample),
    ]


def _failure_lines(sample: Sample) -> list[str]:
    lines = [
        f"  {count:,} of the sampled rows would fail: {kind}"
        for kind, count in sorted(sample.failures.items(), key=lambda failure: -failure[1])
    ]
    if sample.cut_short is not None:
        lines.append(f"  sampling was cut short: {sample.cut_short}")
    return lines


def _histogram(tokens: npt.NDArray[np.int64]) -> list[str]:
    """One line a range of lengths, with a bar."""
    low, high = int(tokens.min()), int(tokens.max())
    width = -(-(high - low + 1) // HISTOGRAM_ROWS)
    edges = np.arange(low, high + width + 1, width)
    counts, _ = np.histogram(tokens, bins=edges)
    labels = [f"{start:,} - {start + width - 1:,}" if width > 1 else f"{start:,}" for start in edges[:-1].tolist()]
    margin = max(map(len, labels))
    return [
        f"  {label:>{margin}}  {'█' * round(BAR_WIDTH * count / counts.max()):<{BAR_WIDTH}}  {count:,}"
        for label, count in zip(labels, counts.tolist(), strict=True)
    ]


def _of_one(num_shards: int) -> str:
    return "memory of one engine" if num_shards == 1 else f"memory of one of an engine's {num_shards} shards"


def _memory_lines(job: Job, memory: Memory) -> list[tuple[str, str]]:
    lines = [("weights", byte_text(memory.weights_bytes))]
    if _generates(job):
        seqs = f"{job.engine.max_num_seqs:,} sequences"
        lines.append(
            ("cache", f"{byte_text(memory.typical_cache_bytes)} for {seqs} of the sampled length and max_tokens")
        )
        lines.append(("", f"{byte_text(memory.full_cache_bytes)} for {seqs} of the longest length there can be"))
        if job.engine.cache_bytes is not None:
            lines.append(("", f"{byte_text(job.engine.cache_bytes)} are set (engine.cache_bytes)"))
    elif memory.full_cache_bytes:
        lines.append(("cache", f"{byte_text(memory.full_cache_bytes)} at most, for what prompts begin with in common"))
    return lines


def _probe_lines(job: Job, probe: Probe) -> list[tuple[str, str]]:
    tokens = token_speed(probe.tokens_per_s, probe.cached_tokens_per_s or None)
    lines = [
        ("load", duration(probe.load_s)),
        ("speed", f"{probe.rows_per_s:,.1f} rows/s, {tokens} ({probe.last.num_rows:,} rows at once)"),
    ]
    if _generates(job):
        lines.append(("completion", f"{probe.completion_tokens_per_row:,.1f} tokens a row"))
    return lines


def _cached(cost: Cost) -> str:
    """What of the prompts is not computed, in words behind their number."""
    if not cost.cached_tokens:
        return ""
    share = cost.cached_tokens / cost.prompt_tokens
    return f", of which {cost.cached_tokens:,} ({share:.0%}) are shared with other rows and not computed"


def _cost_lines(job: Job, cost: Cost, probe: Probe) -> list[tuple[str, str]]:
    lines = [("prompt tokens", f"{cost.prompt_tokens:,}{_cached(cost)}")]
    if _generates(job):
        lines.append(("completion tokens", f"{cost.completion_tokens:,}"))
    lines.append(
        (
            "time",
            f"{duration(cost.seconds)} with one engine like the one probed, on a machine that is as busy then as it is now",
        )
    )
    lines.append(("", f"{duration(cost.start_s)} of it to start and end, loading included ({duration(probe.load_s)})"))
    if cost.is_uncertain:
        rate = duration(cost.start_s + cost.other_compute_s)
        lines.append(("", f"{rate} if more rows at once make it no faster than {probe.last.num_rows:,} did"))
    most = job.engine.max_replicas or job.engine.replicas
    if most > 1:
        lines.append(
            ("", f"{duration(cost.start_s + cost.compute_s / most)} with {most} engines on machines of their own")
        )
    lines.append(("after a kill", f"at most about {cost.tokens_at_risk:,} tokens would be computed again"))
    return lines


def _generates(job: Job) -> bool:
    return any(task.generates for task in job.task.parts().values())
