"""One model in this process, for online requests: what a Serve deployment wraps, and what tests serve directly.

A causal checkpoint generates, scores and embeds with one copy of its weights: passes of the scorer take turns with the engine's steps in
the one thread that computes. Other heads score and embed.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch

from actors.engine.core import GeneratingBackend, OnePassRequest, answers_in_one_pass, scored
from actors.engine.loading import engine_of, scorer_of
from actors.online.model import FloatArray, OnlineRequest
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork, OnePassAnswer
from models import AsyncEngine, Scorer
from models.config.model_config import ModelConfig
from models.engine.memory import MemoryPlan
from models.engine.scheduling.request import Delta
from models.engine.scheduling.stats import EngineStats, PriorityStats
from models.engine.scoring.prefix_tree import num_shared
from models.engine.shard_processes import SCORED_TOKENS, LocalShards, StartShards
from models.engine.watchdog import Watchdog
from models.errors import EngineError, ModelError, RequestError
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds, num_computed

Result = TypeVar("Result")


class LocalModel:
    """An `OnlineModel` over a scorer, and for a causal model an engine on the same weights."""

    def __init__(
        self,
        *,
        engine: AsyncEngine | None,
        scorer: Scorer,
        thread: ThreadPoolExecutor,
        max_pass_tokens: int = SCORED_TOKENS,
    ) -> None:
        """`thread` is the one that computes; `max_pass_tokens` is how many tokens a caller may have in one turn of it."""
        self._engine, self._scorer, self._thread = engine, scorer, thread
        self._max_pass_tokens = max_pass_tokens
        self._id = uuid.uuid4().hex
        self.max_model_len = scorer.max_model_len

    @classmethod
    def load(
        cls,
        settings: EngineSettings,
        *,
        start: StartShards = LocalShards,
        watchdog: Watchdog | None = None,
    ) -> "LocalModel":
        """Loads a checkpoint with the sizes and threads of `settings`, whose sampling and labels every request brings along instead.
        `start` makes its other shards. Blocks until it is loaded.

        Raises:
            ModelError: the checkpoint cannot be loaded.
        """
        torch.set_num_threads(settings.num_threads)
        folder = settings.find().folder
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="millrace-step")
        if ModelConfig.from_pretrained(folder).head == "causal":
            engine = engine_of(settings, folder, start, thread)
            return cls(engine=AsyncEngine(engine, watchdog), scorer=engine.scorer(watchdog), thread=thread)
        scorer = thread.submit(scorer_of, settings, folder, start, watchdog).result()
        return cls(engine=None, scorer=scorer, thread=thread)

    @property
    def memory(self) -> MemoryPlan:
        """What a shard of it takes, and what fits in."""
        return self._scorer.memory if self._engine is None else self._engine.memory

    @property
    def is_generative(self) -> bool:
        """Whether it makes text."""
        return self._engine is not None

    def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        """See `OnlineModel`."""
        if self._engine is None:
            raise RequestError("this model has no causal head; it makes no text")
        return self._engine.stream(request.request_id, request.token_ids, request.params, priority=request.priority)

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        """See `OnlineModel`."""
        score = self._scorer.score
        parts = [await self._compute(partial(score, token_ids[turn])) for turn in self._passes(token_ids)]
        return [cast("FloatArray", logits.numpy()) for part in parts for logits in part]

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        """See `OnlineModel`."""
        score = self._scorer.score_own_labels
        turns = self._passes(token_ids, labels)
        parts = [await self._compute(partial(score, token_ids[turn], labels[turn])) for turn in turns]
        return np.stack([cast("FloatArray", logprobs.numpy()) for part in parts for logprobs in part])

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        """See `OnlineModel`."""
        embed = partial(self._scorer.embed, **asdict(options))
        parts = [await self._compute(partial(embed, token_ids[turn])) for turn in self._passes(token_ids)]
        return np.concatenate([part.numpy() for part in parts])

    async def compute(self, work: EngineWork, asked: Asked) -> list[EngineAnswer]:
        """The answers to rows of a job, at batch priority. A request that cannot be served is an answer that says so.

        Raises:
            EngineError: the engine failed; what it had is lost.
        """
        if asked.sampling is None:
            return await answers_in_one_pass(partial(self._scored, asked), work, asked)
        if self._engine is None:
            raise RequestError("this model has no causal head; it makes no text")
        return await GeneratingBackend(self._engine, asked.sampling).compute(work)

    async def _scored(self, asked: Asked, requests: Sequence[OnePassRequest]) -> list[OnePassAnswer]:
        turns = self._passes([request.token_ids for request in requests], [request.labels for request in requests])
        parts = [await self._compute(partial(scored, self._scorer, asked, requests[turn])) for turn in turns]
        return [one for part in parts for one in part]

    async def stats(self) -> EngineStats:
        """See `OnlineModel`."""
        found = EngineStats(by_priority={"online": PriorityStats()}) if self._engine is None else self._engine.stats
        return replace(found, engine_id=self._id)

    def close(self) -> None:
        """Lets go of the model; who still waits gets an EngineError."""
        if self._engine is not None:
            self._engine.close()
        self._thread.shutdown(cancel_futures=True)
        self._scorer.close()

    def _passes(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds] = ()) -> Iterator[slice]:
        """Neighbouring sequences that are computed in one turn, with the labels behind each; what one has computed once with
        the one before counts once."""
        first = num_tokens = 0
        different = {id(own): own for own in labels}  # most prompts have the very same
        num_more_of = {key: num_computed(own) for key, own in different.items()}
        for place, ids in enumerate(token_ids):
            num_alone = len(ids) + (num_more_of[id(labels[place])] if labels else 0)
            is_shared = place > first and self._scorer.shares_beginnings
            num_more = num_alone - (num_shared(token_ids[place - 1], ids) if is_shared else 0)
            if place > first and num_tokens + num_more > self._max_pass_tokens:
                yield slice(first, place)
                first, num_tokens, num_more = place, 0, num_alone
            num_tokens += num_more
        if token_ids:
            yield slice(first, len(token_ids))

    async def _compute(self, call: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except ModelError:
            raise
        except Exception as error:  # the process boundary: out of memory, a lost device, a closed model
            raise EngineError(f"a pass of the scorer failed: {type(error).__name__}") from error
