"""What an online service asks of a model, and what it gets: a small protocol of plain values.

The HTTP side knows models by this alone: in one process they are `actors.online.local.LocalModel`s, on a cluster whatever calls one in
another process. All values are frozen and pickle, and errors are those of `models.errors` and `actors.errors`.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.config.model_config import ModelConfig
from models.engine.scheduling.request import Delta, Priority, SamplingParams
from models.engine.scheduling.stats import EngineStats
from models.errors import ConfigError
from models.tasks.embedding import EmbeddingConfig, EmbedOptions, embedding_of
from models.tasks.facts import ModelFacts
from models.tasks.label_tokens import LabelIds
from models.tasks.rerank import Reranking, reranking_of
from models.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What the HTTP side has to know about a model: its name in requests, the facts of its checkpoint, how it makes vectors
    and how it is asked for relevance (None: it does not). `created` is a Unix time."""

    name: str
    facts: ModelFacts
    embedding: EmbeddingConfig | None = None
    reranking: Reranking | None = None
    created: int = 0

    @classmethod
    def from_description(
        cls, name: str, folder: Path, tokenizer: Tokenizer, *, max_model_len: int | None = None, created: int = 0
    ) -> "ModelCard":
        """The card of a checkpoint, from its description alone; `max_model_len` None is the longest sequence it was made for.

        Raises:
            ConfigError: its configuration cannot be used.
        """
        config = ModelConfig.from_pretrained(folder)
        return cls(
            name=name,
            facts=ModelFacts.from_config(config, tokenizer, max_model_len),
            embedding=_unless_unusable(name, partial(embedding_of, folder, config)),
            reranking=_unless_unusable(name, partial(reranking_of, folder, config, tokenizer)),
            created=created,
        )


def _unless_unusable(name: str, read: Callable[[], Found]) -> Found | None:
    """What is read of a checkpoint, None if it has none of it."""
    try:
        return read()
    except ConfigError as error:
        logger.info("the model %s: %s", name, error)
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineRequest:
    """One sequence to generate. `request_id` tells it from all others that run."""

    request_id: str
    token_ids: tuple[int, ...]
    params: SamplingParams
    priority: Priority = "online"


class OnlineModel(Protocol):
    """One served model.

    Every method raises RequestError for what this request cannot have, EngineError when the engine is lost, and OverloadedError when
    it takes no more at the moment. None of them may wait for ever.
    """

    def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        """The deltas of one sequence, the last one with its finish reason. Closing the generator, or cancelling
        the task that waits for it, aborts the sequence and frees its blocks within a step."""

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        """The task head's logits for each sequence, as `models.Scorer.score` has them."""

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[LabelIds]) -> FloatArray:
        """Log p(label | prompt) of a causal model [N, L]: behind each of at least one prompt L labels, which are its own."""

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        """One vector a sequence [N, D], as `models.Scorer.embed` has them; of at least one sequence."""

    async def stats(self) -> EngineStats:
        """The load now, and what was done; raises EngineError of a model that can serve no more. They are sums over
        replicas where there are several, of what was done over all that there ever were."""
