"""Where preparing a unit stands, told to the watcher of its process (`models.isolation`): which
row it is at, and what is done with it.

A row's template and a row's text each have the time of one step. Texts are tokenized many at once, which is faster, so a step may also
be a slice of them: where that goes over its limit, the unit is prepared again with slices of one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from models.isolation import step

SLICE_CHARS = 1 << 18
"""Characters of the texts that are tokenized at once; a longer text is a slice by itself."""

_S_PER_CHAR = 1e-5  # slow tokenizers take a tenth of it
_S_PER_BYTE = 1e-6  # of a unit, for making values of its columns and blocks of its requests


class Doing(IntEnum):
    """What a step is spent on."""

    RENDERING = 0
    TOKENIZING = 1
    TOKENIZING_SLICE = 2
    """Of the row, and some after it."""
    UNIT = 3
    """Of no row in particular."""


@dataclass(frozen=True, slots=True)
class Place:
    """A step: the row's number in its file, and what was done with it."""

    row: int
    doing: Doing

    @property
    def number(self) -> int:
        """Both as the one number that a step has."""
        return self.row * len(Doing) + self.doing

    @classmethod
    def of(cls, number: int) -> "Place":
        row, doing = divmod(number, len(Doing))
        return cls(row, Doing(doing))


class Pace:
    """Tells the steps of one unit. Rows go by their position among `row_numbers`; `slice_chars` 0 makes slices of one row."""

    def __init__(self, row_numbers: Sequence[int], *, slice_chars: int = SLICE_CHARS) -> None:
        self.slice_chars = slice_chars
        self._row_numbers = [*row_numbers]
        self._row = 0

    def at_unit(self, num_bytes: int) -> None:
        """Work on all rows of a unit of `num_bytes` bytes begins."""
        step(Place(0, Doing.UNIT).number, num_bytes * _S_PER_BYTE)

    def at_template(self, position: int) -> None:
        """A row's templates are rendered from now on."""
        step(Place(self._row_numbers[position], Doing.RENDERING).number)

    def at_text(self, position: int, num_chars: int) -> None:
        """A row's text of `num_chars` characters is tokenized, or its tokens are looked at."""
        self._row = self._row_numbers[position]
        self.at_more_text(num_chars)

    def at_more_text(self, num_chars: int) -> None:
        """Further text of the same row."""
        step(Place(self._row, Doing.TOKENIZING).number, num_chars * _S_PER_CHAR)

    def at_slice(self, positions: list[int], num_chars: int) -> None:
        """The texts of some rows are tokenized together."""
        if len(positions) == 1:
            self.at_text(positions[0], num_chars)
        else:
            step(
                Place(self._row_numbers[positions[0]], Doing.TOKENIZING_SLICE).number,
                num_chars * _S_PER_CHAR,
            )
