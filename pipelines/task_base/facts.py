"""What preparing and finishing rows has to know about a checkpoint: a few plain values that travel to every process."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from models.config.model_config import ModelConfig
from models.config.types import Head, ProblemType
from models.tasks.labels import Outcome, outcome_of
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """A checkpoint's task head, its class names by number, and its limits in tokens; `eos_token_ids` end a generated text. `own` is
    what the task itself read of the checkpoint (`Task.read_own`)."""

    head: Head
    num_labels: int
    id2label: Mapping[int, str]
    problem_type: ProblemType | None
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    own: object = None

    @classmethod
    def from_config(cls, config: ModelConfig, tokenizer: Tokenizer, max_model_len: int | None) -> Self:
        """The facts of a checkpoint; `max_model_len` None is the longest sequence it was made for.

        Raises:
            TaskError: two classes share a name.
        """
        own_stop = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        facts = cls(
            head=config.head,
            num_labels=config.num_labels,
            id2label=dict(config.id2label),
            problem_type=config.problem_type,
            vocab_size=config.vocab_size,
            max_model_len=config.max_position_embeddings if max_model_len is None else max_model_len,
            eos_token_ids=config.eos_token_ids or own_stop,
        )
        if len(set(facts.class_names)) < facts.num_labels:
            raise TaskError("model.path", f"the checkpoint gives two classes one name: {', '.join(facts.class_names)}")
        return facts

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, or tags, by number."""
        return tuple(self.id2label[index] for index in range(self.num_labels))

    @property
    def outcome(self) -> Outcome:
        """What a sequence-classification head's values mean, as transformers reads `problem_type`."""
        return outcome_of(self.problem_type, self.num_labels)
