"""What travels through the graph: a unit's rows as they are read, prepared, answered and finished.

A stage runs in another process, and each value carries everything the later stages need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from actors.work import EngineAnswer
from pipelines.errors import RowError
from pipelines.formats.json_values import JsonText
from pipelines.rows.unit import Unit
from pipelines.task_base.requests import ModelRequest, SeveralAsked

Int64Array = npt.NDArray[np.int64]
SHOWN_UNIT = 0
"""The unit of a run whose first prompt is kept for people to look at."""

BoolArray = npt.NDArray[np.bool_]
JsonRow = Mapping[str, Any] | JsonText
"""A row as a JSON object: values by column name, or the text of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrowColumns:
    """Rows as Arrow columns, and by position the errors of those that do not fit their types (and are null there)."""

    table: pa.Table
    misfits: Mapping[int, RowError]


class Rows(Protocol):
    """The readable rows of a unit in input order, held as their format has them. Picklable."""

    @property
    def num_rows(self) -> int: ...

    def kept(self, keep: BoolArray) -> Self:
        """The rows where `keep` [N] is true."""
        ...

    def carried(self, columns: tuple[str, ...] | None) -> Self:
        """The rows with these columns alone (None: all)."""
        ...

    def values(self, columns: frozenset[str] | None) -> list[Mapping[str, Any] | RowError]:
        """The rows' Python values of these columns (None: all) as far as a row has them; an error, unraised, where one cannot be read."""
        ...

    def as_json(self) -> list[dict[str, Any]]:
        """The rows' JSON values by column name, as far as a row has them, for `dump_json`."""
        ...

    def as_given(self) -> list[JsonRow]:
        """The rows whole, as close to how they came in as can be."""
        ...

    def as_arrow(self) -> ArrowColumns:
        """The rows in the types of the run's schema."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFailure:
    """A row that became a dead letter: its number in its file, the kind and text of the error, the original input as JSON values;
    the answer of the HTTP API, if it was that; and which of several tasks failed."""

    row: int
    kind: str
    message: str
    input: JsonRow
    answer: Mapping[str, Any] | None = None
    tasks: tuple[str, ...] = ()

    @classmethod
    def of(cls, unit: Unit, position: int, error: RowError, given: JsonRow) -> Self:
        """The failure of the row at a position of a unit."""
        return cls(row=unit.first_row + position, kind=error.kind, message=error.message, input=given)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitRows:
    """A unit as read: the readable rows in input order with their numbers in the file, and the rows that could not be read."""

    unit: Unit
    rows: Rows
    row_numbers: Int64Array
    failures: tuple[RowFailure, ...]

    @classmethod
    def of(cls, unit: Unit, rows: Rows, positions: Sequence[int], failures: Sequence[RowFailure]) -> Self:
        """The rows that stand at these positions of a unit."""
        numbers = np.asarray(positions, dtype=np.int64) + unit.first_row
        return cls(unit=unit, rows=rows, row_numbers=numbers, failures=tuple(failures))


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedUnit:
    """A unit ready for the engine: good rows with their requests, in row order, and every failure so far.

    `texts` holds the rendered text of each good row where the task keeps them, as extraction does, whose offsets count its characters;
    `several` what several tasks have of each in its place.
    `prompt` is what the model reads for the first of them, special tokens included, of a unit that is to be shown.
    """

    unit: Unit
    rows: Rows
    row_numbers: Int64Array
    failures: tuple[RowFailure, ...]
    requests: tuple[ModelRequest, ...]
    texts: tuple[str, ...] = ()
    several: tuple[SeveralAsked, ...] = ()
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What an engine made of the requests of a `PreparedUnit`, which does not go through the engine's process: an answer for each, in
    order, or the error of one on which our own code failed; and the seconds they took."""

    results: Sequence[EngineAnswer | RowError]
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCounts:
    """What one model of a cascade did: the rows that it was given, those of them whose answer counts, the prompt tokens that it read,
    and those of them that were cached."""

    num_asked: int = 0
    num_kept: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            num_asked=self.num_asked + other.num_asked,
            num_kept=self.num_kept + other.num_kept,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedUnit:
    """What is committed: carried columns and results of the good rows in input order, the dead letters by row number, token counts;
    the `prompt` that the unit is to show; and what each model of a cascade did, if the job is one."""

    unit: Unit
    carried: Rows
    results: pa.Table
    failures: tuple[RowFailure, ...]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float
    prompt: str | None = None
    steps: tuple[StepCounts, ...] = ()
