"""One engine behind an async call: whole lists of requests in, answers out. A run's engine stage and a plan's probe have one; a service's
models are asked one request at a time (`actors.online`).

It knows no rows and no Ray. Whoever holds it decides what an error means: a request that cannot be served comes back as an answer
that says so, anything else is raised and means that this engine is of no more use.
"""

import asyncio
import sys
from functools import partial
from pathlib import Path

import torch

from actors.engine.backend import Backend
from actors.engine.backends import GeneratingBackend, ScoringBackend
from actors.engine.dedup import Dedup
from actors.engine.loading import engine_of, scorer_of
from actors.engine.one_copy import OneCopy, SeveralBackend
from actors.work import EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnFailure, unheard
from models import AsyncEngine
from models.engine.memory import MemoryPlan
from models.engine.shard_processes import LocalShards, StartShards
from models.engine.watchdog import Watchdog
from models.errors import EngineError

ALL_AT_ONCE = sys.maxsize
"""Tokens that a job with an engine of its own scores in one turn: nobody else waits, and a turn that ends within a document has
the next one read it again."""

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

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        """Answers each request of `work`, in its order. Any number of calls may run at once. `on_answered` is told of answers as
        they come; those to equal requests may be known to it at the end alone.

        Raises:
            EngineError: the engine failed; every call in flight is lost.
        """
        if not work.num_requests:
            return []
        try:
            return await self._backend.compute(work, on_answered)
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
    if asked.several:
        generates = any(one.sampling is not None for one in asked.several)
        model = OneCopy.load(settings, folder, start, watchdog, generates=generates, max_pass_tokens=ALL_AT_ONCE)
        return SeveralBackend(model, asked)
    if asked.sampling is None:
        return ScoringBackend(partial(scorer_of, settings, folder, start, watchdog), asked=asked)
    return GeneratingBackend(AsyncEngine(engine_of(settings, folder, start), watchdog), asked.sampling)
