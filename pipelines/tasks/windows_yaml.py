"""How specs write the windows of a text."""

from typing import Annotated

from pydantic import Field

from pipelines.task_base.yaml import MAX_COUNT, wrong

Overlap = Annotated[int, Field(ge=0, le=MAX_COUNT)]


def check_stride(window: int | None, stride: int | None) -> None:
    """Raises if neighbours would share a whole window."""
    if window is not None and stride is not None and stride >= window:
        raise wrong(
            "stride", f"was {stride}; it is the overlap of two windows and must be below window, which is {window}"
        )
