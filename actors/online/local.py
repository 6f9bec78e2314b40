"""One model in this process, for online requests: what a Serve deployment wraps, and what tests serve directly.

A causal checkpoint generates, scores and embeds with one copy of its weights: passes of the scorer take turns with the engine's steps in
the one thread that computes. Other heads score and embed.
"""

import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import cast

import numpy as np
import torch

from actors.engine.one_copy import OneCopy
from actors.online.model import FloatArray, OnlineRequest
from actors.work import Asked, EngineAnswer, EngineSettings, EngineWork
from models.config.model_config import ModelConfig
from models.engine.memory import MemoryPlan
from models.engine.scheduling.request import Delta
from models.engine.scheduling.stats import EngineStats, PriorityStats
from models.engine.shard_processes import LocalShards, StartShards
from models.engine.watchdog import Watchdog
from models.errors import RequestError
from models.tasks.embedding import EmbedOptions
from models.tasks.label_tokens import LabelIds


class LocalModel:
    """An `OnlineModel` over one copy of a model's weights."""

    def __init__(self, model: OneCopy) -> None:
        self._model = model
        self._id = uuid.uuid4().hex
        self.max_model_len = model.scorer.max_model_len

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
        generates = ModelConfig.from_pretrained(folder).head == "causal"
        return cls(OneCopy.load(settings, folder, start, watchdog, generates=generates))

    @property
    def memory(self) -> MemoryPlan:
        """What a shard of it takes, and what fits in."""
        return self._model.memory

    @property
    def is_generative(self) -> bool:
        """Whether it makes text."""
        return self._model.engine is not None

    def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        """See `OnlineModel`."""
        if self._model.engine is None:
            raise RequestError("this model has no causal head; it makes no text")
        return self._model.engine.stream(
            request.request_id, request.token_ids, request.params, priority=request.priority
        )

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        """See `OnlineModel`."""
        score = self._model.scorer.score
        parts = [await self._model.turn(partial(score, token_ids[turn])) for turn in self._model.passes(token_ids)]
        return [cast("FloatArray", logits.numpy()) for part in parts for logits in part]

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        """See `OnlineModel`."""
        score = self._model.scorer.score_own_labels
        turns = self._model.passes(token_ids, labels)
        parts = [await self._model.turn(partial(score, token_ids[turn], labels[turn])) for turn in turns]
        return np.stack([cast("FloatArray", logprobs.numpy()) for part in parts for logprobs in part])

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        """See `OnlineModel`."""
        embed = partial(self._model.scorer.embed, **asdict(options))
        parts = [await self._model.turn(partial(embed, token_ids[turn])) for turn in self._model.passes(token_ids)]
        return np.concatenate([part.numpy() for part in parts])

    async def compute(self, work: EngineWork, asked: Asked) -> list[EngineAnswer]:
        """The answers to rows of a job, at batch priority. A request that cannot be served is an answer that says so.

        Raises:
            EngineError: the engine failed; what it had is lost.
        """
        return await self._model.answers(work, asked)

    async def stats(self) -> EngineStats:
        """See `OnlineModel`."""
        found = (
            EngineStats(by_priority={"online": PriorityStats()})
            if self._model.engine is None
            else self._model.engine.stats
        )
        return replace(found, engine_id=self._id)

    def close(self) -> None:
        """Lets go of the model; who still waits gets an EngineError."""
        self._model.close()
