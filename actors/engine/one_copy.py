"""One copy of a model's weights that both generates and scores: passes of the scorer take turns with the engine's steps in the one
thread that computes. Heads that make no text score alone.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from actors.engine.backends import GeneratingBackend, OnePassRequest, answers_in_one_pass, scored
from actors.engine.loading import engine_of, scorer_of
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork, OnAnswered, OnePassAnswer, unheard
from models import AsyncEngine, Scorer
from models.engine.memory import MemoryPlan
from models.engine.prefix_tree import num_shared
from models.engine.shard_processes import SCORED_TOKENS, StartShards
from models.engine.watchdog import Watchdog
from models.errors import EngineError, ModelError, RequestError
from models.tasks.label_tokens import LabelIds, num_computed

Result = TypeVar("Result")


class OneCopy:
    """A scorer, and an engine on the same weights where there is something to generate."""

    def __init__(
        self,
        *,
        engine: AsyncEngine | None,
        scorer: Scorer,
        thread: ThreadPoolExecutor,
        max_pass_tokens: int = SCORED_TOKENS,
    ) -> None:
        """`thread` is the one that computes; `max_pass_tokens` is how many tokens a caller may have in one turn of it."""
        self.engine, self.scorer = engine, scorer
        self._thread, self._max_pass_tokens = thread, max_pass_tokens

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        folder: Path,
        start: StartShards,
        watchdog: Watchdog | None,
        *,
        generates: bool,
        max_pass_tokens: int = SCORED_TOKENS,
    ) -> "OneCopy":
        """Loads a checkpoint; `generates` says whether it is to have an engine, `max_pass_tokens` is as `OneCopy` has it.
        Blocks until it is loaded.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="millrace-step")
        if generates:
            engine = engine_of(settings, folder, start, thread)
            scorer, generating = engine.scorer(watchdog), AsyncEngine(engine, watchdog)
            return cls(engine=generating, scorer=scorer, thread=thread, max_pass_tokens=max_pass_tokens)
        scorer = thread.submit(scorer_of, settings, folder, start, watchdog).result()
        return cls(engine=None, scorer=scorer, thread=thread, max_pass_tokens=max_pass_tokens)

    @property
    def memory(self) -> MemoryPlan:
        """What a shard of it takes, and what fits in."""
        return self.scorer.memory if self.engine is None else self.engine.memory

    async def answers(self, work: EngineWork, asked: Asked, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        """The answers to rows of a job, at batch priority. A request that cannot be served is an answer that says so.

        Raises:
            EngineError: the engine failed; what it had is lost.
        """
        if asked.several:
            return await self._answers_of_several(work, asked.several, on_answered)
        if asked.sampling is None:
            return await answers_in_one_pass(partial(self._scored, asked, on_answered), work, asked)
        if self.engine is None:
            raise RequestError("this model has no causal head; it makes no text")
        return await GeneratingBackend(self.engine, asked.sampling).compute(work, on_answered)

    async def turn(self, call: Callable[[], Result]) -> Result:
        """What `call` returns, in the thread that computes.

        Raises:
            EngineError: it failed.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except ModelError:
            raise
        except Exception as error:  # the process boundary: out of memory, a lost device, a closed model
            raise EngineError(f"a pass of the scorer failed: {type(error).__name__}") from error

    def passes(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds] = ()) -> Iterator[slice]:
        """Neighbouring sequences that are computed in one turn, with the labels behind each; what one has computed once with
        the one before counts once."""
        first = num_tokens = 0
        different = {id(own): own for own in labels}  # most prompts have the very same
        num_more_of = {key: num_computed(own) for key, own in different.items()}
        for place, ids in enumerate(token_ids):
            num_alone = len(ids) + (num_more_of[id(labels[place])] if labels else 0)
            is_shared = place > first and self.scorer.shares_beginnings
            num_more = num_alone - (num_shared(token_ids[place - 1], ids) if is_shared else 0)
            if place > first and num_tokens + num_more > self._max_pass_tokens:
                yield slice(first, place)
                first, num_tokens, num_more = place, 0, num_alone
            num_tokens += num_more
        if token_ids:
            yield slice(first, len(token_ids))

    def close(self) -> None:
        """Lets go of the model; who still waits gets an EngineError."""
        if self.engine is not None:
            self.engine.close()
        self._thread.shutdown(cancel_futures=True)
        self.scorer.close()

    async def _scored(
        self, asked: Asked, on_answered: OnAnswered, requests: Sequence[OnePassRequest]
    ) -> list[OnePassAnswer]:
        turns = self.passes([request.token_ids for request in requests], [request.labels for request in requests])
        parts = [await self.turn(partial(scored, self.scorer, asked, requests[turn], on_answered)) for turn in turns]
        return [one for part in parts for one in part]

    async def _answers_of_several(
        self, work: EngineWork, several: Sequence[Asked], on_answered: OnAnswered
    ) -> list[EngineAnswer]:
        """Each request as its task asks; those with labels together, so that what they begin with in common is computed once."""
        numbers = work.task_numbers.tolist()
        own = {
            number: work.own_labels.get(number, several[task].labels)
            for number, task in enumerate(numbers)
            if several[task].labels
        }
        groups = [("labels", Asked(), list(own))]
        for task, asked in enumerate(several):
            if not asked.labels:
                groups.append((str(task), asked, [number for number, of in enumerate(numbers) if of == task]))
        groups = [group for group in groups if group[2]]
        labelled = replace(work, own_labels=own)
        calls = [
            self.answers(labelled.picked(picked, name=f"{work.name}/{name}"), asked, on_answered)
            for name, asked, picked in groups
        ]
        found: dict[int, EngineAnswer] = {}
        for (_, _, picked), answers in zip(groups, await asyncio.gather(*calls), strict=True):
            found |= zip(picked, answers, strict=True)
        return [found[number] for number in range(work.num_requests)]


class SeveralBackend:
    """What computes for a job with several tasks."""

    def __init__(self, model: OneCopy, asked: Asked) -> None:
        self._model, self._asked = model, asked

    @property
    def memory(self) -> MemoryPlan:
        return self._model.memory

    async def compute(self, work: EngineWork, on_answered: OnAnswered = unheard) -> list[EngineAnswer]:
        return await self._model.answers(work, self._asked, on_answered)

    def close(self) -> None:
        self._model.close()
