"""What an online service asks of a model, and what it gets: a small protocol of plain values.

The HTTP side knows models by this alone: in one process they are `actors.online.local.LocalModel`s, on a cluster whatever calls one in
another process. All values are frozen and pickle, and errors are those of `models.errors` and `actors.errors`.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.config.model_config import ModelConfig
from models.config.types import Head
from models.engine.scheduling.request import Delta, Priority, SamplingParams
from models.errors import ConfigError
from models.tasks.embedding import Embedding, EmbedOptions, embedding_of
from models.tasks.labels import Outcome, outcome_of
from models.tasks.rerank import Reranking, reranking_of
from models.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What the HTTP side has to know about a model: its name in requests, its task head, class names by number, what their values
    mean, how it makes vectors and how it is asked for relevance (None: it does not), and its limits. `created` is a Unix time."""

    name: str
    head: Head
    max_model_len: int
    vocab_size: int
    class_names: tuple[str, ...]
    outcome: Outcome
    eos_token_ids: tuple[int, ...]
    embedding: Embedding | None = None
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
        own_stop = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        return cls(
            name=name,
            head=config.head,
            max_model_len=config.max_position_embeddings if max_model_len is None else max_model_len,
            vocab_size=config.vocab_size,
            class_names=tuple(config.id2label[index] for index in range(config.num_labels)),
            outcome=outcome_of(config.problem_type, config.num_labels),
            eos_token_ids=config.eos_token_ids or own_stop,
            embedding=_unless_unusable(name, partial(embedding_of, folder, config)),
            reranking=_unless_unusable(name, partial(reranking_of, folder, config, tokenizer)),
            created=created,
        )


def _unless_unusable(name: str, read: Callable[[], Found]) -> Found | None:
    """What is read of a checkpoint, None where it has none of it."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Requests of one priority that wait for the engine, and that it runs."""

    num_waiting: int
    num_running: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What engines did so far for requests of one priority, rows of jobs among them. A prompt is counted when it first runs."""

    num_prompt_tokens: int = 0
    num_generated_tokens: int = 0
    num_preemptions: int = 0

    def __add__(self, other: "Done") -> "Done":
        return Done(
            num_prompt_tokens=self.num_prompt_tokens + other.num_prompt_tokens,
            num_generated_tokens=self.num_generated_tokens + other.num_generated_tokens,
            num_preemptions=self.num_preemptions + other.num_preemptions,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineStats:
    """A model's load at this moment: requests by priority, and blocks of its cache (0 of 0 where it keeps none); and what was done, by
    the engine of that id. Sums over replicas where there are several, of what was done over all that there ever were."""

    loads: Mapping[Priority, Load]
    done: Mapping[Priority, Done] = field(default_factory=dict)
    num_blocks: int = 0
    num_blocks_held: int = 0
    engine_id: str = ""


class OnlineModel(Protocol):
    """One served model.

    Every method raises RequestError for what this request cannot have, EngineError when the engine is lost, and OverloadedError when
    it takes no more at the moment. None of them may wait for ever.
    """

    def stream(self, request: OnlineRequest) -> AsyncGenerator[Delta]:
        """The deltas of one sequence, the last one with its finish reason. Closing the generator, or cancelling
        whoever waits for it, aborts the sequence and frees its blocks within a step."""

    async def score(self, token_ids: Sequence[Sequence[int]]) -> list[FloatArray]:
        """The task head's logits for each sequence, as `models.Scorer.score` has them."""

    async def score_labels(self, token_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> FloatArray:
        """Log p(label | prompt) of a causal model [prompts, labels]."""

    async def embed(self, token_ids: Sequence[Sequence[int]], options: EmbedOptions) -> FloatArray:
        """One vector a sequence [N, D], as `models.Scorer.embed` has them; of at least one sequence."""

    async def stats(self) -> OnlineStats:
        """The load now; raises EngineError of a model that can serve no more."""
