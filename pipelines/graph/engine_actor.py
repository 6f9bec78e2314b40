"""The process of an engine: a Ray actor that computes units, several at a time, for whichever process asks.

It stands between units and the `EngineCore`, which knows only requests, and it is the process boundary of an engine: when the engine
fails, the cause is journalled and the process ends, so that Ray starts a fresh one; who asked asks again.
"""

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn, Protocol, TypeVar

from actors.work import ENGINE_FAILED, EngineAnswer, EngineSettings, OnFailure, Work
from models.engine.memory import MemoryPlan
from pipelines.errors import RowError
from pipelines.ledger.attempts import Attempts
from pipelines.rows.blocks import packed, unpacked
from pipelines.rows.row_guard import row_error
from pipelines.rows.rows import Answers

logger = logging.getLogger(__name__)

Asking_contra = TypeVar("Asking_contra", contravariant=True)


class AnswersRequests(Protocol[Asking_contra]):
    """What answers requests: an `EngineCore`, or an `ApiEngine` those of the HTTP API. Which of them, `Asked` says, and so does the work
    that it is given."""

    @property
    def memory(self) -> MemoryPlan | None: ...

    async def compute(self, work: Asking_contra) -> list[EngineAnswer]: ...


MakeEngine = Callable[[EngineSettings, OnFailure], AnswersRequests[Any]]


def load_engine(settings: EngineSettings, on_failure: OnFailure) -> AnswersRequests[Any]:
    """The real engine, its shards in the bundles beside it. Imported where it is loaded: no other process of a run needs torch."""
    from actors.engine.core import EngineCore
    from actors.engine.shard_group import group_shards

    start, api = group_shards(settings, on_failure), settings.asked.api
    if api is not None:
        from actors.http.batch import ApiEngine

        return ApiEngine(settings, api, start=start, on_hang=on_failure)
    return EngineCore(settings, start=start, on_hang=on_failure)


OF_A_REQUEST: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What an engine raises over a request that it is not prepared for. All else - no memory, a lost device or shard - is the engine's end."""


class EngineActor:
    """One engine, loaded once; one call per unit, any number at a time. An
    `actors.engine.owner.Replica`."""

    def __init__(self, settings: EngineSettings, attempts: Attempts, make_engine: MakeEngine) -> None:
        self._attempt = attempts.begin()
        self._calls = itertools.count()
        self._num_calls, self._is_retired = 0, False
        try:
            self._engine = make_engine(settings, self._end)
        except Exception as error:
            self._attempt.fail(f"the engine could not be started: {_with_type(error)}")
            raise
        self._attempt.ready(self._engine.memory)

    def num_calls(self) -> int:
        """How many units it has."""
        return self._num_calls

    def retire(self) -> None:
        """Has it take no more units; those it has are computed."""
        self._is_retired = True

    async def compute(self, work: bytes) -> bytes | None:
        """The `Answers` to a `Work`, both packed as in a block; None once it is retired."""
        if self._is_retired:
            return None
        self._num_calls += 1
        try:
            return packed(await self._answers(unpacked(work)))
        except Exception as error:
            logger.error("the engine failed", exc_info=error)
            self._end(_with_type(error))
        finally:
            self._num_calls -= 1

    async def _answers(self, work: Work) -> Answers:
        started = time.perf_counter()
        name = f"{work.name}/{next(self._calls)}"  # a unit may be tried again while its first attempt still runs
        results = await self._computed(replace(work, name=name))
        return Answers(results=results, seconds=time.perf_counter() - started)

    async def _computed(self, work: Work) -> Sequence[EngineAnswer | RowError]:
        """An answer to each request; where the engine fails on some, those are found by halving."""
        try:
            return await self._engine.compute(work)
        except OF_A_REQUEST as error:
            if work.num_requests == 1:
                logger.error("a request failed", exc_info=error)
                return [row_error(error)]
        first, second = [await self._computed(half) for half in work.halves()]
        return [*first, *second]

    def _end(self, cause: str) -> NoReturn:
        """Ends the process at once; whatever else is in flight would fail as well."""
        try:
            self._attempt.fail(cause)
        finally:
            os._exit(ENGINE_FAILED)


def _with_type(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
