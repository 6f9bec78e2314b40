"""What becomes of a row that some of several tasks fail on."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pipelines.errors import RowError

Partial = Literal["drop", "keep"]
"""Whether a row that some tasks fail on is a dead letter, or is written with what the others have answered."""

DROP: Final[Partial] = "drop"


def row_error(names: Sequence[str], errors: Mapping[int, RowError], partial: Partial) -> RowError | None:
    """The error of a row whose tasks, called `names`, have these errors by number; None if it is no dead letter."""
    if not errors or (partial == "keep" and len(errors) < len(names)):
        return None
    numbers = sorted(errors)
    first = errors[numbers[0]]
    message = "; ".join(f"task {names[number]}: {errors[number].message}" for number in numbers)
    return RowError(first.kind, message, first.answer, [names[number] for number in numbers])
