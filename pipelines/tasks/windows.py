"""The windows that a task asks for: how long they are, and how much of a document neighbours share. `models.tasks.windows` cuts them."""

from dataclasses import dataclass
from typing import Self

from pipelines.errors import TaskError


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
