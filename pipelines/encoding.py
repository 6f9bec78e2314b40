"""What every kind of task does to turn rows into model requests, and what it makes.

A task's encoder takes the rows of a unit as column name to Python value, renders its templates and tokenizes all texts in one call.
What is wrong with one row stands, from there on, in its place as a `RowError`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from models.errors import RequestError, TemplateError
from models.text import Tokenizer
from pipelines.errors import RowError
from pipelines.kinds import INVALID_VALUE, TEMPLATE_ERROR, TOO_LONG
from pipelines.row_mapping import ProtectedRow

Row = Mapping[str, Any]
Int32Array = npt.NDArray[np.int32]
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One request of a row: token ids [T], and for extraction their character offsets [T, 2] as `ModelRequest` has them."""

    token_ids: Int32Array
    offsets: Int32Array | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedRow:
    """A row's requests, and for extraction its rendered text."""

    pieces: tuple[Piece, ...]
    text: str | None = None


class RowEncoder(Protocol):
    """A task over a checkpoint: rows in, requests out. `required_columns` has to exist in the input, `columns` are read if they do, and
    all there are with `reads_all`."""

    @property
    def columns(self) -> frozenset[str]: ...
    @property
    def required_columns(self) -> frozenset[str]: ...
    @property
    def reads_all(self) -> bool: ...
    def encode_rows(self, rows: Sequence[Row | RowError]) -> list[EncodedRow | RowError]: ...


def of_tokens(token_ids: Sequence[int]) -> EncodedRow:
    """A row of a single request."""
    return EncodedRow(pieces=(Piece(token_ids=np.array(token_ids, np.int32)),))


def each(function: Callable[[In], Out], items: Sequence[In | RowError]) -> list[Out | RowError]:
    """`function` of every item, with the `RowError` it raises, or the item already was, in that place."""
    return [item if isinstance(item, RowError) else _attempt(function, item) for item in items]


def together(
    function: Callable[[list[In]], Sequence[Out]], items: Sequence[In | RowError]
) -> list[tuple[In, Out] | RowError]:
    """Every item that is no `RowError` with its result from one call of `function` for all of them, or its own error."""
    good = [item for item in items if not isinstance(item, RowError)]
    results = iter(_together_or_alone(function, good) if good else ())
    return [item if isinstance(item, RowError) else _paired(item, next(results)) for item in items]


def _together_or_alone(function: Callable[[list[In]], Sequence[Out]], items: list[In]) -> Sequence[Out | RowError]:
    try:
        return function(items)
    except RequestError:  # of one of them
        return each(lambda item: function([item])[0], items)


def _paired(item: In, result: Out | RowError) -> tuple[In, Out] | RowError:
    return result if isinstance(result, RowError) else (item, result)


def _attempt(function: Callable[[In], Out], item: In) -> Out | RowError:
    try:
        return function(item)
    except RowError as error:
        return error
    except TemplateError as error:
        return RowError(TEMPLATE_ERROR, str(error))
    except RequestError as error:
        return RowError(INVALID_VALUE, str(error))


def protected(row: Row, tokenizer: Tokenizer) -> Row:
    """The row with every string in it protected: special tokens that it spells stay text."""
    protect = tokenizer.protect
    return ProtectedRow(row, protect=protect, protect_value=lambda value: _protected_value(value, protect))


def _protected_value(value: Any, protect: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return protect(value)
    if isinstance(value, list | tuple):
        return [_protected_value(item, protect) for item in value]
    if isinstance(value, dict):
        return {_protected_value(key, protect): _protected_value(item, protect) for key, item in value.items()}
    return value


def too_long(what: str, limit: int, remedy: str) -> RowError:
    """The error of a row that needs more tokens than there are."""
    return RowError(TOO_LONG, f"{what}; at most {limit} are possible: {remedy}")
