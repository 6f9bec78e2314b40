"""How fast an engine is, found out with some rows of a job: `millrace plan`'s probe.

    probe = probe_engine(settings, rows, budget_s=12.0)

The engine is one that a run would use, in this process. Batches of neighbouring rows grow, and no row is computed twice, so that
what is found in a cache is what rows of a run share.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from actors.engine.core import EngineCore
from actors.work import EngineSettings, OnePassAnswer
from models.engine.scheduling.request import Output
from pipelines.task_base.requests import ModelRequest, work_of

FIRST_ROWS: Final = 8
GROWTH: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbedBatch:
    """Rows that were computed together: their seconds and tokens, of which `cached_tokens` were not computed. `lengths` are the
    tokens generated for each request; nothing where none are."""

    num_rows: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def computed_prompt_tokens(self) -> int:
        return max(0, self.prompt_tokens - self.cached_tokens)

    @property
    def completion_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def num_steps(self) -> int:
        """The steps of its longest generation, which all the others share; a single call where nothing is generated."""
        return max(self.lengths, default=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """The batches that one engine in this process computed, at least one, each larger than the one before; and how long loading took.

    Speeds are the last one's.
    """

    batches: tuple[ProbedBatch, ...]
    load_s: float

    @property
    def last(self) -> ProbedBatch:
        return self.batches[-1]

    @property
    def tokens_per_s(self) -> float:
        """Those that were computed."""
        return (self.last.computed_prompt_tokens + self.last.completion_tokens) / self.last.seconds

    @property
    def cached_tokens_per_s(self) -> float:
        return self.last.cached_tokens / self.last.seconds

    @property
    def rows_per_s(self) -> float:
        return self.last.num_rows / self.last.seconds

    @property
    def cached_share(self) -> float:
        """The part of the last batch's prompt tokens that was not computed."""
        return self.last.cached_tokens / self.last.prompt_tokens if self.last.prompt_tokens else 0.0

    @property
    def lengths(self) -> tuple[int, ...]:
        """The tokens of every generation."""
        return tuple(length for batch in self.batches for length in batch.lengths)

    @property
    def completion_tokens_per_row(self) -> float:
        return sum(self.lengths) / sum(batch.num_rows for batch in self.batches)


def probe_engine(settings: EngineSettings, rows: Sequence[Sequence[ModelRequest]], *, budget_s: float) -> Probe | None:
    """Loads the engine and runs rows through it for about `budget_s` seconds; None if there is no row to run.

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
        return Probe(batches=within_budget(_batches(engine, asked), budget_s), load_s=load_s)
    finally:
        engine.close()


def within_budget(batches: Iterator[ProbedBatch], budget_s: float) -> tuple[ProbedBatch, ...]:
    """Goes on while the next batch, which takes `GROWTH` times as long at most, would not go over the budget. There are two unless
    the first took half of it: one alone cannot tell what a step costs from what its rows do."""
    found: list[ProbedBatch] = []
    spent_s = 0.0
    for batch in batches:
        found.append(batch)
        spent_s += batch.seconds
        is_enough = len(found) > 1 and spent_s + GROWTH * batch.seconds > budget_s
        if is_enough or spent_s > budget_s / 2:
            break
    return tuple(found)


def _batches(engine: EngineCore, rows: Sequence[Sequence[ModelRequest]]) -> Iterator[ProbedBatch]:
    """Ever larger ones; the last has what rows are left, unless these are fewer than in the one before."""
    start, size = 0, FIRST_ROWS
    while start < len(rows) and (start == 0 or len(rows) - start >= size // GROWTH):
        picked = rows[start : start + size]
        yield _batch(engine, f"probe-{start}", picked)
        start, size = start + len(picked), size * GROWTH


def _batch(engine: EngineCore, name: str, rows: Sequence[Sequence[ModelRequest]]) -> ProbedBatch:
    requests = [request for row in rows for request in row]
    start = time.monotonic()
    answers = asyncio.run(engine.compute(work_of(name, requests)))
    seconds = time.monotonic() - start
    cached = sum(answer.num_cached_tokens for answer in answers if isinstance(answer, Output | OnePassAnswer))
    return ProbedBatch(
        num_rows=len(rows),
        seconds=max(seconds, 1e-6),
        prompt_tokens=sum(len(request.token_ids) for request in requests),
        cached_tokens=cached,
        lengths=tuple(len(answer.token_ids) for answer in answers if isinstance(answer, Output)),
    )
