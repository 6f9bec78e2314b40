"""Equal requests that are in flight at the same time are computed once, and answered to each.

It is for answers that follow from the prompt alone: greedy generation, and what one pass says.
Whoever makes one sees to that.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from actors.engine.backend import Backend
from actors.work import EngineAnswer, EngineWork, OnAnswered, OnePassAnswer, unheard
from models import Output
from models.engine.memory import MemoryPlan
from models.tasks.label_tokens import LabelIds

_Key = tuple[tuple[int, ...], LabelIds | None, int]
"""A request's tokens, the labels of its own that are scored behind them, and the number of its task."""


class Dedup:
    """A backend over another one, which is asked for each prompt once at a time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._in_flight: dict[_Key, asyncio.Future[EngineAnswer]] = {}

    @property
    def memory(self) -> MemoryPlan:
        return self._backend.memory

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        """Answers each request of `work`, in its order. What another call has in flight is waited
        for; if that call is given up, it is computed here.

        Raises:
            EngineError: the engine failed, asked by this call or by one that has equal requests in flight.
        """
        tasks = work.task_numbers.tolist()
        keys = [(tuple(ids), work.own_labels.get(number), tasks[number]) for number, ids in enumerate(work.requests())]
        firsts: dict[_Key, int] = {}
        for index, key in enumerate(keys):
            firsts.setdefault(key, index)
        answers: dict[_Key, EngineAnswer] = {}
        own: set[_Key] = set()
        while missing := [key for key in firsts if key not in answers]:
            theirs = {key: self._in_flight[key] for key in missing if key in self._in_flight}
            mine = {key: firsts[key] for key in missing if key not in theirs}
            if mine:
                answers |= await self._ask(work, mine, on_answered)
                own.update(mine)
            if theirs:
                await asyncio.wait(theirs.values())
                answers |= {key: future.result() for key, future in theirs.items() if not future.cancelled()}
        found: list[EngineAnswer] = []
        for key in keys:
            found.append(answers[key] if key in own else _again(answers[key], key))
            own.discard(key)
        return found

    def close(self) -> None:
        self._backend.close()

    async def _ask(
        self, work: EngineWork, mine: Mapping[_Key, int], on_answered: OnAnswered
    ) -> dict[_Key, EngineAnswer]:
        """Has these computed, which are `work`'s requests of these numbers, for whoever waits for
        them too."""
        futures = {key: asyncio.get_running_loop().create_future() for key in mine}
        self._in_flight |= futures
        try:
            answers = await self._backend.compute(work.picked(list(mine.values())), on_answered)
        except BaseException as error:
            for future in futures.values():
                if isinstance(error, Exception):
                    future.set_exception(error)
                    future.exception()  # it may be that nobody waits
                else:
                    future.cancel()
            raise
        finally:
            for key in mine:
                del self._in_flight[key]
        for future, answer in zip(futures.values(), answers, strict=True):
            future.set_result(answer)
        return dict(zip(mine, answers, strict=True))


def _again(answer: EngineAnswer, key: _Key) -> EngineAnswer:
    """The answer to one more request of the kind, for which nothing was computed."""
    num_prompt = len(key[0])
    if isinstance(answer, Output):
        return replace(answer, num_cached_tokens=num_prompt + len(answer.token_ids))
    return replace(answer, num_cached_tokens=num_prompt) if isinstance(answer, OnePassAnswer) else answer
