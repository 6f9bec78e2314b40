"""What a task has to know of its checkpoint, to prepare rows and to finish them: plain values that travel to every process."""

from dataclasses import dataclass
from typing import Self

from models.config.model_config import ModelConfig
from models.tasks.facts import ModelFacts
from models.text.tokenizer import Tokenizer
from pipelines.errors import TaskError


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """The facts of the `model` that all kinds of tasks share, and the task's `own`: what its kind read of the checkpoint
    (`Task.read_own`)."""

    model: ModelFacts
    own: object = None

    @classmethod
    def from_config(cls, config: ModelConfig, tokenizer: Tokenizer, max_model_len: int | None) -> Self:
        """The facts of a checkpoint as far as all tasks share them; see `ModelFacts.from_config`.

        Raises:
            TaskError: two classes share a name.
        """
        model = ModelFacts.from_config(config, tokenizer, max_model_len)
        if len(set(model.class_names)) < len(model.class_names):
            raise TaskError("model.path", f"the checkpoint gives two classes one name: {', '.join(model.class_names)}")
        return cls(model=model)
