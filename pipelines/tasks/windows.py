"""The windows that a task asks for: how long they are, and how much of a document neighbours share. `models.tasks.windows` cuts them."""

from dataclasses import dataclass
from typing import Literal, Self

from pipelines.errors import TaskError
from pipelines.task_base.facts import TaskFacts

Merging = Literal["mean", "max"]
"""How the probabilities of a text's windows are put together."""

REMEDY = "shorten it, set task.windows to mean or max, or raise engine.max_model_len"
"""For a text of a classification that is too long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowSize:
    """A window's length in tokens, special tokens and a question included, and how many tokens of text neighbours share."""

    window: int
    stride: int

    @classmethod
    def of(cls, *, window: int | None, stride: int | None, max_model_len: int) -> Self:
        """The sizes a task asks for; by default as long as the model allows, and a quarter of the window shared.

        Raises:
            TaskError: a window longer than the model, or neighbours that share all of it.
        """
        length = max_model_len if window is None else window
        if not 1 <= length <= max_model_len:
            raise TaskError(
                "task.window", f"was {length}; it must be from 1 to max_model_len, which is {max_model_len}"
            )
        overlap = length // 4 if stride is None else stride
        if not 0 <= overlap < length:
            raise TaskError(
                "task.stride", f"was {overlap}; it must be from 0 to less than the window of {length} tokens"
            )
        return cls(window=length, stride=overlap)


def merged_window_size(
    merging: Merging | None, window: int | None, stride: int | None, facts: TaskFacts
) -> WindowSize | None:
    """The windows a classification asks for, or None.

    Raises:
        TaskError: a size that cannot be used, or one without a way of merging.
    """
    if merging is not None:
        return WindowSize.of(window=window, stride=stride, max_model_len=facts.model.max_model_len)
    for name, value in (("window", window), ("stride", stride)):
        if value is not None:
            raise TaskError(f"task.{name}", "needs task.windows, mean or max: how a text's windows are put together")
    return None
