"""What computes with a model of one use: an engine that generates, or a scorer that answers with one pass a request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import torch

from actors.work import Asked, EngineAnswer, EngineWork, OnAnswered, OnePassAnswer, Refused, unheard
from models import AsyncEngine, Output, SamplingParams, Scorer
from models.engine.memory import MemoryPlan
from models.errors import RequestError
from models.tasks.label_tokens import LabelIds


@dataclass(frozen=True, slots=True)
class OnePassRequest:
    """A request that is answered in one pass, and the labels that are scored behind it, if any
    are."""

    token_ids: list[int]
    labels: LabelIds


class GeneratingBackend:
    """Continuous batching: requests of all calls in flight share the engine's steps."""

    def __init__(self, engine: AsyncEngine, sampling: SamplingParams) -> None:
        self._engine, self._sampling = engine, sampling

    @property
    def memory(self) -> MemoryPlan:
        return self._engine.memory

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        seeds = work.seeds.tolist()
        calls = [
            self._generate(f"{work.name}/{n}", ids, seeds[n], on_answered) for n, ids in enumerate(work.requests())
        ]
        return list(await asyncio.gather(*calls))

    async def _generate(
        self, request_id: str, token_ids: list[int], seed: int, on_answered: OnAnswered
    ) -> Output | Refused:
        answer: Output | Refused
        try:
            answer = await self._engine.generate(request_id, token_ids, self._sampling, seed=seed)
        except RequestError as error:
            answer = Refused(error=str(error))
        on_answered(1)
        return answer

    def close(self) -> None:
        self._engine.close()


class ScoringBackend:
    """One forward pass a request, packed within one call only and in a fixed order; what requests
    begin with in common is kept from call to call: the answer does not depend on what else runs
    but for rounding.

    One thread loads the model and computes, one call after the other (a second one that multiplies would have OpenMP threads
    of its own, more than there are cores); the event loop stays free to take in the next.
    """

    def __init__(self, load: Callable[[], Scorer], *, asked: Asked = Asked()) -> None:  # noqa: B008 - frozen
        self._asked = asked
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scorer")
        self._scorer = self._thread.submit(load).result()

    @property
    def memory(self) -> MemoryPlan:
        return self._scorer.memory

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        return await answers_in_one_pass(partial(self._scored, on_answered), work, self._asked)

    async def _scored(self, on_answered: OnAnswered, requests: Sequence[OnePassRequest]) -> list[OnePassAnswer]:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, scored, self._scorer, self._asked, requests, on_answered
        )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._scorer.close()


def scored(
    scorer: Scorer, asked: Asked, requests: Sequence[OnePassRequest], on_answered: OnAnswered = unheard
) -> list[OnePassAnswer]:
    """What one pass says of each request; to be called in the thread that computes. `on_answered` is told of every pack.

    Raises:
        RequestError: one of them cannot be served.
    """
    token_ids = [request.token_ids for request in requests]
    scorer.on_computed = on_answered
    values: Iterable[torch.Tensor]
    if any(request.labels for request in requests):
        values = scorer.score_own_labels(token_ids, [request.labels for request in requests])
    elif asked.embed is not None:
        values = scorer.embed(token_ids, **asdict(asked.embed))
    else:
        values = scorer.score(token_ids)
    pairs = zip(values, scorer.num_cached.tolist(), strict=True)
    return [OnePassAnswer(values=one.numpy(), num_cached_tokens=num_cached) for one, num_cached in pairs]


Score = Callable[[Sequence[OnePassRequest]], Awaitable[Iterable[OnePassAnswer]]]


async def answers_in_one_pass(score: Score, work: EngineWork, asked: Asked) -> list[EngineAnswer]:
    """What `score` says of each request of `work`, or that it refuses it."""
    labels = work.labels(asked.labels)
    return await _scored_or_refused(
        score, [OnePassRequest(*pair) for pair in zip(work.requests(), labels, strict=True)]
    )


async def _scored_or_refused(score: Score, requests: Sequence[OnePassRequest]) -> list[EngineAnswer]:
    """What `score` says of each request. Where it refuses them, each is asked alone, so that only those that cannot be served are
    refused."""
    try:
        return list(await score(requests))
    except RequestError as error:
        if len(requests) == 1:
            return [Refused(error=str(error))]
        return [answer for request in requests for answer in await _scored_or_refused(score, [request])]
