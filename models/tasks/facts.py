"""What a caller of a model has to know of its checkpoint without loading it: plain values that
travel to every process."""

from dataclasses import dataclass
from typing import Self

from models.config.model_config import ModelConfig
from models.config.types import Head
from models.tasks.labels import Outcome, outcome_of
from models.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A checkpoint's task head, the names of its classes, or tags, by number, what a sequence-classification head's
    values mean, and its limits in tokens; `eos_token_ids` end a generated text."""

    head: Head
    class_names: tuple[str, ...]
    outcome: Outcome
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]

    @classmethod
    def from_config(cls, config: ModelConfig, tokenizer: Tokenizer, max_model_len: int | None) -> Self:
        """The facts of a checkpoint; `max_model_len` None is the longest sequence it was made for."""
        own_stop = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        return cls(
            head=config.head,
            class_names=tuple(config.id2label[index] for index in range(config.num_labels)),
            outcome=outcome_of(config.problem_type, config.num_labels),
            vocab_size=config.vocab_size,
            max_model_len=config.max_position_embeddings if max_model_len is None else max_model_len,
            eos_token_ids=config.eos_token_ids or own_stop,
        )
