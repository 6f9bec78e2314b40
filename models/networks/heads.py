"""Task heads over any decoder: causal, sequence classification, token classification, question answering, or none.

A head maps final hidden states to logits and says which rows of a packed batch it needs; it does not know the family
beneath it.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from models.config.model_config import ModelConfig
from models.config.types import Head
from models.layers.embedding import VocabEmbedding, VocabHead
from models.layers.linear import Linear, replicated
from models.layers.rotary.rotation import Rotary
from models.layers.state import Cache, Spec
from models.networks.decoder import Batch, BuildOptions
from models.parallel.tensor_parallel import TensorParallel

# Classification heads are tiny and replicated: (published name, has a bias, channels or None for the number of labels).
_SCORES: dict[Head, tuple[str, bool, int | None]] = {
    "sequence-classification": ("score", False, None),
    "token-classification": ("score", True, None),
    "question-answering": ("qa_outputs", True, 2),
}


class Decoder(Protocol):
    """A family's body, an `nn.Module`: called with a `Batch` and the caches its `cache_specs` ask for, in their order,
    it gives the final hidden states [T, H], or [R, H] for the batch's rows."""

    config: ModelConfig
    options: BuildOptions
    embed_tokens: VocabEmbedding
    rotary: Rotary

    @property
    def cache_specs(self) -> Sequence[Spec]: ...

    @property
    def windows(self) -> set[int | None]: ...

    def canonical_name(self, name: str) -> str: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Model(nn.Module):
    """A decoder and a task head: a packed batch in, logits out."""

    def __init__(self, decoder: Decoder, head: Head, *, is_tied: bool) -> None:
        super().__init__()
        self.config, self.head = decoder.config, head
        self.decoder = decoder
        self.output = build_output(
            decoder.config, head, decoder.embed_tokens if is_tied else None, tp=decoder.options.tp
        )

    def forward(self, batch: Batch, caches: Sequence[Cache] | None = None) -> torch.Tensor:
        """Final hidden states [T, H], or [R, H] for `batch.rows`; `logits` maps them on."""
        return self.decoder(batch, caches)  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden [R, H] -> [R, V], [R, L], [R, 2] or, without a head, as they are; in the model's dtype."""
        return self.output(hidden)  # type: ignore[no-any-return]


def build_output(config: ModelConfig, head: Head, tied_to: VocabEmbedding | None, *, tp: TensorParallel) -> nn.Module:
    """The output layer of a task head; `tied_to` gives a causal head the embedding's weight."""
    if head == "embedding":
        return nn.Identity()
    if head != "causal":
        name, has_bias, channels = _SCORES[head]
        return Linear([replicated(name, channels or config.num_labels)], config.hidden_size, bias=has_bias)
    output = VocabHead("lm_head", config.vocab_size, config.hidden_size, tp=tp)
    if tied_to is not None:
        output.tie(tied_to)
    return output
