"""A column of JSON values as an Arrow array; a value that would lose something is an error of its row."""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.conform import conform
from pipelines.formats.json_values import dump_json
from pipelines.formats.schema import json_reason

MISSING: Final = object()
"""Stands for the value of a column that a row does not have."""


@dataclass(frozen=True, slots=True)
class FittedColumn:
    """An array with null in the rows whose values do not fit, and why those do not."""

    array: "pa.Array[Any]"
    misfits: dict[int, RowError]


def fit_column(values: Sequence[Any], field: "pa.Field[Any]", *, takes_any: bool = False) -> FittedColumn:
    """JSON values, or `MISSING`, in the type of `field`.

    A field marked as JSON text takes every value, null as the text `null`, so that missing stays apart from it. With `takes_any` a
    column of text does, all but text and null as JSON text.
    """
    if json_reason(field) is not None:
        return FittedColumn(pa.array([None if value is MISSING else json_text(value) for value in values]), {})
    values = [None if value is MISSING else value for value in values]
    if takes_any and _is_text(field.type):
        values = [value if isinstance(value, str | None) else json_text(value) for value in values]
    if _is_from_text(field.type):
        return _parsed(values, field)
    misfits: dict[int, RowError] = {}
    typed = [_typed_or_none(row, value, field, misfits) for row, value in enumerate(values)]
    try:
        return FittedColumn(pa.array(typed, field.type), misfits)
    except _REFUSALS:
        typed = [_accepted_or_none(row, value, field, misfits) for row, value in enumerate(typed)]
        return FittedColumn(pa.array(typed, field.type), misfits)


def json_text(value: Any) -> str:
    """A JSON value as compact text, with Python's names `NaN` and `Infinity` for numbers that JSON
    does not have."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace").decode()


# What making an Arrow value raises: a number out of range, text that is not UTF-8 or not a time.
_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError)


class _MisfitError(Exception):
    """A JSON value is not of the kind that a type wants."""


def _misfit(field: "pa.Field[Any]", error: Exception) -> RowError:
    return RowError(
        "schema_mismatch",
        f"column {field.name!r} is {field.type} in this run, and the value does not fit: {error}; "
        "input.schema can give the column another type",
    )


def _typed_or_none(row: int, value: Any, field: "pa.Field[Any]", misfits: dict[int, RowError]) -> Any:
    try:
        return _typed(value, field.type)
    except (_MisfitError, *_REFUSALS) as error:
        misfits[row] = _misfit(field, error)
        return None


def _accepted_or_none(row: int, value: Any, field: "pa.Field[Any]", misfits: dict[int, RowError]) -> Any:
    try:
        pa.array([value], field.type)
    except _REFUSALS as error:
        misfits[row] = _misfit(field, error)
        return None
    return value


def _is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def _is_from_text(type: pa.DataType) -> bool:
    """Whether Arrow makes the values of text, as it does of CSV's."""
    return pa.types.is_date(type) or pa.types.is_timestamp(type)


def _parsed(values: Sequence[Any], field: "pa.Field[Any]") -> FittedColumn:
    """Text in the type of `field`, cast as the cells of CSV are."""
    texts = pa.field(field.name, pa.string())
    misfits = {
        row: _misfit(field, _MisfitError(f"{_shortened(value)} for {field.type}"))
        for row, value in enumerate(values)
        if not isinstance(value, str | None)
    }
    given = fit_column([None if row in misfits else value for row, value in enumerate(values)], texts)
    fitted = conform(pa.Table.from_arrays([given.array], schema=pa.schema([texts])), pa.schema([field]))
    places: list[int | None] = [None] * len(values)
    for place, row in enumerate(fitted.positions):
        places[row] = place
    array = fitted.table.column(0).combine_chunks().take(pa.array(places, pa.int64()))
    return FittedColumn(array, misfits | given.misfits | fitted.misfits)


def _typed(value: Any, type: pa.DataType) -> Any:
    """The Python value that makes an Arrow value of `type` from a JSON value."""
    match type:
        case _ if value is None:
            typed = None
        case pa.DictionaryType():
            typed = _typed(value, type.value_type)
        case pa.StructType():
            typed = _struct(value, type)
        case pa.MapType():
            typed = [(name, _typed(item, type.item_type)) for name, item in _expect(value, dict, type).items()]
        case pa.ListType() | pa.LargeListType() | pa.FixedSizeListType():
            typed = [_typed(item, type.value_type) for item in _expect(value, list, type)]
        case _ if pa.types.is_boolean(type):
            typed = _expect(value, bool, type)
        case _ if pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_duration(type):
            typed = _number(value, type)
        case _ if pa.types.is_decimal(type):
            typed = _decimal(value)
        case _ if pa.types.is_time(type):
            typed = dt.time.fromisoformat(_expect(value, str, type))
        case _:
            text = _expect(value, str, type)
            typed = text if _is_text(type) else pa.scalar(text).cast(type).as_py()
    return typed


def _struct(value: Any, type: pa.StructType) -> dict[str, Any]:
    row = _expect(value, dict, type)
    names = {field.name for field in type}
    for name in row:
        if name not in names:
            raise _MisfitError(f"{_shortened(value)} has the key {name!r}, which {type} has not")
    return {field.name: _typed(row.get(field.name), field.type) for field in type}


def _expect(value: Any, kind: type, type: pa.DataType) -> Any:
    if not isinstance(value, kind):
        raise _MisfitError(f"{_shortened(value)} for {type}")
    return value


def _number(value: Any, type: pa.DataType) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MisfitError(f"{_shortened(value)} for {type}")
    if pa.types.is_floating(type):
        if isinstance(value, int) and float(value) != value:
            raise _MisfitError(f"{value} for {type}")
        return float(value)
    if isinstance(value, float) and not value.is_integer():
        raise _MisfitError(f"{value} for {type}")
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _MisfitError(f"{_shortened(value)} for a decimal number")
    try:
        return Decimal(str(value))
    except InvalidOperation as error:
        raise _MisfitError(f"{_shortened(value)} is not a decimal number") from error


def _shortened(value: Any) -> str:
    text = dump_json(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
