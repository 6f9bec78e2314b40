"""The process of an engine: a Ray actor that computes units, several at a time, for whichever process asks.

It stands between units and the `EngineCore`, which knows only requests, and it is the process boundary of an engine: when the engine
fails, the cause is journalled and the process ends, so that Ray starts a fresh one; who asked asks again.
"""

import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn, Protocol, TypeVar

from actors.engine.load import CallLoad, EngineLoad
from actors.work import ENGINE_FAILED, EngineAnswer, EngineSettings, OnAnswered, OnFailure, Work
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

    async def compute(self, work: Asking_contra, on_answered: OnAnswered) -> list[EngineAnswer]: ...


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


@dataclass(kw_only=True, slots=True)
class _Call:
    """A unit that the engine has, and how many of its requests are answered so far."""

    name: str
    num_requests: int
    num_answered: int = 0

    def count(self, count: int) -> None:
        """An `OnAnswered`."""
        self.num_answered += count

    @property
    def load(self) -> CallLoad:
        """Requests of a try that was given up may still be answered: there are never more than there are."""
        answered = min(self.num_answered, self.num_requests)
        return CallLoad(name=self.name, num_requests=self.num_requests, num_answered=answered)


class EngineActor:
    """One engine, loaded once; one call per unit, any number at a time. An
    `actors.engine.owner.Replica`."""

    def __init__(self, settings: EngineSettings, attempts: Attempts, make_engine: MakeEngine) -> None:
        self._attempt = attempts.begin()
        self._calls, self._process = itertools.count(), uuid.uuid4().hex
        self._in_work: dict[int, _Call] = {}
        self._is_retired = False
        try:
            self._engine = make_engine(settings, self._end)
        except Exception as error:
            self._attempt.fail(f"the engine could not be started: {_with_type(error)}")
            raise
        self._attempt.ready(self._engine.memory)

    def load(self) -> EngineLoad:
        """The units that it has, and how far each is."""
        return EngineLoad(process=self._process, calls=tuple(call.load for call in self._in_work.values()))

    def retire(self) -> None:
        """Has it take no more units; those it has are computed."""
        self._is_retired = True

    async def compute(self, work: bytes) -> bytes | None:
        """The `Answers` to a `Work`, both packed as in a block; None once it is retired."""
        if self._is_retired:
            return None
        number = next(self._calls)
        try:
            return packed(await self._answers(number, unpacked(work)))
        except Exception as error:
            logger.error("the engine failed", exc_info=error)
            self._end(_with_type(error))
        finally:
            self._in_work.pop(number, None)

    async def _answers(self, number: int, work: Work) -> Answers:
        started = time.perf_counter()
        call = self._in_work[number] = _Call(name=work.name, num_requests=work.num_requests)
        name = f"{work.name}/{number}"  # a unit may be tried again while its first attempt still runs
        results = await self._computed(replace(work, name=name), call)
        return Answers(results=results, seconds=time.perf_counter() - started)

    async def _computed(self, work: Work, call: _Call) -> Sequence[EngineAnswer | RowError]:
        """An answer to each request; where the engine fails on some, those are found by halving."""
        before = call.num_answered
        try:
            return await self._engine.compute(work, call.count)
        except OF_A_REQUEST as error:
            if work.num_requests == 1:
                logger.error("a request failed", exc_info=error)
                return [row_error(error)]
        call.num_answered = before
        first, second = [await self._computed(half, call) for half in work.halves()]
        return [*first, *second]

    def _end(self, cause: str) -> NoReturn:
        """Ends the process at once; whatever else is in flight would fail as well."""
        try:
            self._attempt.fail(cause)
        finally:
            os._exit(ENGINE_FAILED)


def _with_type(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
