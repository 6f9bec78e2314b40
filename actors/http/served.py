"""The models of a service, as routes see them: name, card, tokenizer, and the way to the engine."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from actors.http.errors import ApiError, api_error
from actors.http.limits import ConcurrencyLimit, RequestLimits
from actors.http.priors import Priors
from actors.http.texts.text_pool import TextPool
from actors.online.metrics import Metrics, RequestNote
from actors.online.model import ModelCard, OnlineModel
from models.config.model_config import NO_HEAD
from models.config.types import Head
from models.engine.scheduling.stats import EngineStats
from models.tasks.embedding import EmbeddingConfig
from models.tasks.rerank import Reranking
from models.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

STATS_TIMEOUT_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedModel:
    """One model behind the HTTP side, which has its processes read texts for it, and lets in so much at once. `tokenizer` is only
    asked what single tokens are called."""

    card: ModelCard
    tokenizer: Tokenizer
    texts: TextPool
    model: OnlineModel
    admission: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    priors: Priors = field(default_factory=Priors)

    def require_head(self, *heads: Head) -> None:
        """Refuses what this model's task head cannot do."""
        head = self.card.facts.head
        if head not in heads:
            has = f"no task head: {NO_HEAD}" if head == "embedding" else f"a {head} head"
            raise ApiError(
                400,
                f"the model {self.card.name} has {has}; this endpoint needs {' or '.join(heads)}",
                param="model",
                code="model_not_supported",
            )

    def require_embedding(self) -> EmbeddingConfig:
        """How this model makes vectors; refuses one whose files do not say so in a way that is known here."""
        if self.card.embedding is None:
            raise ApiError(
                400,
                f"the model {self.card.name} makes no embeddings: its sentence-transformers files ask for what this service does not know",
                param="model",
                code="model_not_supported",
            )
        return self.card.embedding

    def require_reranking(self) -> Reranking:
        """How this model is asked for relevance; refuses one that is not a reranker."""
        if self.card.reranking is None:
            raise ApiError(
                400,
                f"the model {self.card.name} is no reranker; this endpoint needs a Qwen3-Reranker, a classification head of one label, "
                "or a cross-encoder that sentence-transformers saved",
                param="model",
                code="model_not_supported",
            )
        return self.card.reranking


@dataclass(frozen=True, kw_only=True)
class Service:
    """All that routes share."""

    limits: RequestLimits
    metrics: Metrics
    models: Mapping[str, ServedModel]
    fallback: ServedModel | None = None

    @classmethod
    def of(cls, models: Iterable[ServedModel], limits: RequestLimits, fallback: ServedModel | None = None) -> "Service":
        """A service of these models; `fallback` answers to every other name, if there is one."""
        named = {one.card.name: one for one in models}
        return cls(limits=limits, metrics=Metrics(), models=named, fallback=fallback)

    def find(self, name: str, note: RequestNote) -> ServedModel:
        """The model of that name.

        Raises:
            ApiError: 404, there is no model of that name.
        """
        served = self.models.get(name, self.fallback)
        if served is None:
            raise ApiError(
                404,
                f"there is no model {name!r}; this service has {', '.join(map(repr, self.models)) or 'none'}",
                param="model",
                code="model_not_found",
            )
        note.model = served.card.name
        return served

    def explain(self, error: Exception) -> ApiError:
        """What a client is told of an error."""
        return api_error(error, retry_after_s=self.limits.retry_after_s)

    def close(self) -> None:
        """Ends what is the models' here: the processes that read their texts."""
        for served in self.models.values():
            served.texts.close()

    async def stats(self) -> dict[str, EngineStats | None]:
        """Each model's load; None for one that cannot serve, or does not say."""
        found = await asyncio.gather(*(_stats_of(served) for served in self.models.values()))
        return dict(zip(self.models, found, strict=True))


async def _stats_of(served: ServedModel) -> EngineStats | None:
    try:
        async with asyncio.timeout(STATS_TIMEOUT_S):
            return await served.model.stats()
    except Exception as error:  # noqa: BLE001 - the process boundary: why a model does not answer is its own matter
        logger.warning("the model %s does not answer: %s", served.card.name, type(error).__name__)
        return None
