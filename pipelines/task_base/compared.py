"""What of a row's result is compared where two runs of one kind of task are held against each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A row's result: the JSON values that were answered, in an order that does not matter (None: numbers alone); the labels among
    them, if any, `is_one_label` where a row has one of several; and its numbers, by name, or as a vector."""

    answers: Sequence[Any] | None = None
    labels: Sequence[str] = ()
    is_one_label: bool = False
    numbers: Mapping[str, float] | Sequence[float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """How results of a task are compared: `what` they are, in the plural, and `said_in` a row with those of `columns` that are there, by
    the task's own names."""

    what: str
    columns: tuple[str, ...]
    said_in: Callable[[Mapping[str, Any]], Said]
