"""A workload run in process, timed: how fast the engine or the scorer is on this machine, without Ray, files or text around it.

A workload file is `{"kind": "generate" | "classify", "name": ..., "requests": [{"prompt_token_ids": [...], "max_tokens": n}]}`. Every
generation request runs to its `max_tokens`, greedily, end-of-sequence ignored; `max_tokens` is absent or 0 for `classify`.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from jobs.errors import UsageError
from models import Engine, SamplingParams, Scorer
from models.engine.options import EngineOptions

WARM_UP_REQUESTS = 4
KIB = 1024


class WorkloadRequest(pydantic.BaseModel):
    """One prompt, and how many tokens to generate after it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    prompt_token_ids: Annotated[list[int], pydantic.Field(min_length=1)]
    max_tokens: Annotated[int, pydantic.Field(ge=0)] = 0


class Workload(pydantic.BaseModel):
    """What to run."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    kind: Literal["generate", "classify"]
    name: str
    requests: Annotated[list[WorkloadRequest], pydantic.Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One run of a workload. `wall_s` is without load and warm-up; total tokens are prompt and
    completion tokens together, `cached_tokens` those of a prompt that were found in the prefix
    cache, computed ones the others."""

    output_tokens_per_s: float
    total_tokens_per_s: float
    computed_tokens_per_s: float
    wall_s: float
    load_s: float
    peak_rss_mb: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


def read_workload(path: Path) -> Workload:
    """Reads and checks a workload file.

    Raises:
        UsageError: it cannot be read, or a field is wrong; the text says which.
    """
    try:
        workload = Workload.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"workload {path} cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise UsageError(f"workload {path} is wrong: {problems}") from error
    for index, request in enumerate(workload.requests):
        if (request.max_tokens > 0) != (workload.kind == "generate"):
            raise UsageError(
                f"workload {path}: requests.{index}.max_tokens is {request.max_tokens}; it must be at least 1 for kind "
                "'generate' and 0 or absent for 'classify'"
            )
    return workload


def measure(
    model: str,
    workload: Workload,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    options: EngineOptions | None = None,
) -> Measurement:
    """Loads the checkpoint (a folder, a URL or a hub id), warms up on the first requests, and runs the workload once.

    Raises:
        ModelError: the checkpoint cannot be loaded, or a request cannot be served.
    """
    started = time.perf_counter()
    run, close = _LOADERS[workload.kind](model, dtype, quantization, options or EngineOptions())
    loaded = time.perf_counter()
    run(workload.requests[:WARM_UP_REQUESTS])
    begun = time.perf_counter()
    cached_tokens = run(workload.requests)
    wall_s = time.perf_counter() - begun
    close()
    prompt_tokens = sum(len(request.prompt_token_ids) for request in workload.requests)
    completion_tokens = sum(request.max_tokens for request in workload.requests)
    return Measurement(
        output_tokens_per_s=completion_tokens / wall_s,
        total_tokens_per_s=(prompt_tokens + completion_tokens) / wall_s,
        computed_tokens_per_s=(prompt_tokens + completion_tokens - cached_tokens) / wall_s,
        wall_s=wall_s,
        load_s=loaded - started,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
    )


Run = Callable[[Sequence[WorkloadRequest]], int]
"""Runs requests to their ends; returns how many of their prompts' tokens were cached."""


def _load_engine(
    model: str, dtype: str, quantization: str | None, options: EngineOptions
) -> tuple[Run, Callable[[], None]]:
    engine = Engine.from_pretrained(model, dtype=dtype, quantization=quantization, options=options)

    def run(requests: Sequence[WorkloadRequest]) -> int:
        params = [SamplingParams(max_tokens=one.max_tokens, temperature=0.0, ignore_eos=True) for one in requests]
        outputs = engine.generate([one.prompt_token_ids for one in requests], params)
        return sum(output.num_cached_tokens for output in outputs)

    return run, engine.close


def _load_scorer(
    model: str, dtype: str, quantization: str | None, options: EngineOptions
) -> tuple[Run, Callable[[], None]]:
    scorer = Scorer.from_pretrained(
        model,
        dtype=dtype,
        quantization=quantization,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_model_len=options.max_model_len,
    )

    def run(requests: Sequence[WorkloadRequest]) -> int:
        scorer.score([one.prompt_token_ids for one in requests])
        return int(scorer.num_cached.sum())

    return run, lambda: None


_LOADERS = {"generate": _load_engine, "classify": _load_scorer}
