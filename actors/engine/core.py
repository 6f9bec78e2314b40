"""One engine behind an async call: whole lists of requests in, answers out. A run's engine stage and a plan's probe have one; a service's
models are asked one request at a time (`actors.online`).

It knows no rows and no Ray. Whoever holds it decides what an error means: a request that cannot be served comes back as an answer
that says so, anything else is raised and means that this engine is of no more use.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from actors.engine.backend import Backend
from actors.engine.dedup import Dedup
from actors.engine.loading import engine_of, scorer_of
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork, OnePassAnswer, OnFailure, Refused
from models import AsyncEngine, Output, SamplingParams, Scorer
from models.engine.memory import MemoryPlan
from models.engine.shard_processes import LocalShards, StartShards
from models.engine.watchdog import Watchdog
from models.errors import EngineError, RequestError
from models.tasks.label_tokens import LabelIds

LAST_WORDS_S = 2.0
"""How long the failure of an engine of several shards waits for a better reason than a broken connection."""


class EngineCore:
    """Loads one model and answers for it until it is closed."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        start: StartShards = LocalShards,
        on_hang: OnFailure | None = None,
    ) -> None:
        """Loads the model, with its other shards made by `start`. `on_hang` is called, from a thread of its own, when a step takes
        longer than the settings allow; without it nobody looks.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """
        torch.set_num_threads(settings.num_threads)
        self._watchdog = None if on_hang is None else Watchdog(settings.step_timeout_s, on_hang)
        self._backend = load_backend(settings, start, self._watchdog)
        self._is_alone = settings.tensor_parallel_size == 1

    @property
    def memory(self) -> MemoryPlan:
        """What a shard of this engine takes, and what fits in."""
        return self._backend.memory

    async def compute(self, work: EngineWork) -> list[EngineAnswer]:
        """Answers each request of `work`, in its order. Any number of calls may run at once.

        Raises:
            EngineError: the engine failed; every call in flight is lost.
        """
        if not work.num_requests:
            return []
        try:
            return await self._backend.compute(work)
        except EngineError:
            if not self._is_alone:  # whoever watches the shards may know why, and end this process with it
                await asyncio.sleep(LAST_WORDS_S)
            raise

    def close(self) -> None:
        """Lets go of the model; calls in flight are lost."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._backend.close()


def load_backend(settings: EngineSettings, start: StartShards, watchdog: Watchdog | None) -> Backend:
    """The engine that `settings` asks for, with its model loaded; a checkpoint that is elsewhere is brought here first."""
    backend = _backend(settings, settings.find().folder, start, watchdog)
    return Dedup(backend) if settings.dedup else backend


def _backend(settings: EngineSettings, folder: Path, start: StartShards, watchdog: Watchdog | None) -> Backend:
    asked = settings.asked
    if asked.sampling is None:
        return ScoringBackend(partial(scorer_of, settings, folder, start, watchdog), asked=asked)
    return GeneratingBackend(AsyncEngine(engine_of(settings, folder, start), watchdog), asked.sampling)


class GeneratingBackend:
    """Continuous batching: requests of all calls in flight share the engine's steps."""

    def __init__(self, engine: AsyncEngine, sampling: SamplingParams) -> None:
        self._engine, self._sampling = engine, sampling

    @property
    def memory(self) -> MemoryPlan:
        return self._engine.memory

    async def compute(self, work: EngineWork) -> list[EngineAnswer]:
        seeds = work.seeds.tolist()
        calls = [self._generate(f"{work.name}/{n}", ids, seeds[n]) for n, ids in enumerate(work.requests())]
        return list(await asyncio.gather(*calls))

    async def _generate(self, request_id: str, token_ids: list[int], seed: int) -> Output | Refused:
        try:
            return await self._engine.generate(request_id, token_ids, self._sampling, seed=seed)
        except RequestError as error:
            return Refused(error=str(error))

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

    async def compute(self, work: EngineWork) -> list[EngineAnswer]:
        return await answers_in_one_pass(self._scored, work, self._asked)

    async def _scored(self, requests: "Sequence[OnePassRequest]") -> list[OnePassAnswer]:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, scored, self._scorer, self._asked, requests
        )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._scorer.close()


@dataclass(frozen=True, slots=True)
class OnePassRequest:
    """A request that is answered in one pass, and the labels that are scored behind it, if any
    are."""

    token_ids: list[int]
    labels: LabelIds


def scored(scorer: Scorer, asked: Asked, requests: Sequence[OnePassRequest]) -> list[OnePassAnswer]:
    """What one pass says of each request; to be called in the thread that computes.

    Raises:
        RequestError: one of them cannot be served.
    """
    token_ids = [request.token_ids for request in requests]
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
    return await scored_or_refused(score, [OnePassRequest(*pair) for pair in zip(work.requests(), labels, strict=True)])


async def scored_or_refused(score: Score, requests: Sequence[OnePassRequest]) -> list[EngineAnswer]:
    """What `score` says of each request. Where it refuses them, each is asked alone, so that only those that cannot be served are
    refused."""
    try:
        return list(await score(requests))
    except RequestError as error:
        if len(requests) == 1:
            return [Refused(error=str(error))]
        return [answer for request in requests for answer in await scored_or_refused(score, [request])]
