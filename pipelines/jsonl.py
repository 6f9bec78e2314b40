"""A unit of JSON lines, parsed into the run's schema.

pyarrow parses the whole unit in C++. Where it refuses anything, the lines it refuses alone are parsed in Python: malformed lines, and
lines that do not fit the schema, fail; integers of any size, `NaN`, lone surrogates and the like get through. So a line's fate does
not depend on the unit it is in. A column that `input.schema` declares as string takes any JSON value, as its JSON text.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson
import pyarrow as pa

from pipelines.errors import RowError
from pipelines.json_lines import has_many_digits, is_one_object_a_line, parse_block, parse_object
from pipelines.json_values import dump_json
from pipelines.rows_read import RowsRead


def read_jsonl(text: bytes, lines: Sequence[bytes], schema: pa.Schema, declared: frozenset[str]) -> RowsRead:
    """Parses `lines`, which are the lines of `text` that are not blank, ends included."""
    rows = RowsRead.empty(schema)
    native = _native_schema(schema)
    table = _parse_whole(text, len(lines), native)
    if table is not None:
        rows.add(table, range(len(lines)))
        return rows
    lines = [line.strip() + b"\n" for line in lines]
    refused = list(range(len(lines)))
    if native is not None:
        refused = _add_most(
            rows, lines, native, [name for name in declared & {*schema.names} if _is_text(schema.field(name).type)]
        )
    _add_one_by_one(rows, lines, refused, declared)
    return rows


def _add_most(rows: RowsRead, lines: Sequence[bytes], native: pa.Schema, text_columns: Sequence[str]) -> list[int]:
    """Adds the lines that pyarrow takes and returns the positions of the others; what orjson refuses too stands in nobody's way."""
    forms = [_plain_form(line, text_columns) for line in lines]

    def parse(positions: Sequence[int]) -> pa.Table | None:
        return _parse_whole(b"".join(forms[at] or lines[at] for at in positions), len(positions), native)

    refused = rows.add_most([at for at, form in enumerate(forms) if form is not None], parse)
    for at, form in enumerate(forms):
        if form is None:
            refused += rows.add_most([at], parse)
    return sorted(refused)


def _plain_form(line: bytes, text_columns: Sequence[str]) -> bytes | None:
    """The line, with JSON text for what is no string in the given columns; None for a line that is not plain JSON."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(row, dict):
        return None
    texts = {name: value for name in text_columns if not isinstance(value := row.get(name), str | None)}
    if not texts or has_many_digits(line):
        return line
    return orjson.dumps(row | {name: _json_text(value) for name, value in texts.items()}) + b"\n"


def _parse_whole(text: bytes, num_lines: int, native: pa.Schema | None) -> pa.Table | None:
    if native is None or not num_lines or is_one_object_a_line(text) != num_lines:
        return None
    table = parse_block(text, native)
    return table if table is not None and table.num_rows == num_lines else None


def _add_one_by_one(rows: RowsRead, lines: Sequence[bytes], positions: Sequence[int], declared: frozenset[str]) -> None:
    parsed: list[Mapping[str, Any]] = []
    good = []
    for position in positions:
        try:
            parsed.append(_typed_row(parse_object(lines[position]), rows.schema, declared))
            good.append(position)
        except RowError as error:
            rows.failures[position] = error
    if good:
        columns = [pa.array([row[field.name] for row in parsed], field.type) for field in rows.schema]
        rows.add(pa.Table.from_arrays(columns, schema=rows.schema), good)


def _typed_row(row: Mapping[str, Any], schema: pa.Schema, declared: frozenset[str]) -> dict[str, Any]:
    """The values that `pa.array` takes for the columns of `schema`.

    Raises:
        RowError: `schema_mismatch`.
    """
    typed = {}
    for field in schema:
        value = row.get(field.name)
        if field.name in declared and _is_text(field.type) and not isinstance(value, str | None):
            value = _json_text(value)
        try:
            typed[field.name] = _typed(value, field.type)
            pa.array([typed[field.name]], field.type)
        except (_MisfitError, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise RowError(
                "schema_mismatch",
                f"column {field.name!r} is {field.type} in this run, and the value does not fit: {error}; "
                "input.schema can give the column another type",
            ) from error
    return typed


def _json_text(value: Any) -> str:
    """A JSON value as text; numbers that are none keep the name they were written with."""
    is_number = not isinstance(value, float) or math.isfinite(value)
    return dump_json(value).decode() if is_number else json.dumps(value)


class _MisfitError(Exception):
    """A JSON value is not of the kind that a type wants."""


def _typed(value: Any, type: pa.DataType) -> Any:
    """The Python value that makes an Arrow value of `type` from a JSON value, as strictly as pyarrow's own JSON parser."""
    match type:
        case _ if value is None:
            typed = None
        case pa.DictionaryType():
            typed = _typed(value, type.value_type)
        case pa.StructType():
            row = _expect(value, dict, type)
            typed = {field.name: _typed(row.get(field.name), field.type) for field in type}
        case pa.MapType():
            typed = [(name, _typed(item, type.item_type)) for name, item in _expect(value, dict, type).items()]
        case pa.ListType() | pa.LargeListType() | pa.FixedSizeListType():
            typed = [_typed(item, type.value_type) for item in _expect(value, list, type)]
        case _ if pa.types.is_boolean(type):
            typed = _expect(value, bool, type)
        case _ if pa.types.is_integer(type) or pa.types.is_floating(type):
            typed = _number(value, type)
        case _ if pa.types.is_decimal(type):
            typed = _decimal(value)
        case _ if pa.types.is_time(type):
            typed = dt.time.fromisoformat(_expect(value, str, type))
        case _:
            text = _expect(value, str, type)
            typed = text if _is_text(type) else pa.scalar(text).cast(type).as_py()
    return typed


def _is_text(type: pa.DataType) -> bool:
    return pa.types.is_string(type) or pa.types.is_large_string(type)


def _expect(value: Any, kind: type, type: pa.DataType) -> Any:
    if not isinstance(value, kind):
        raise _MisfitError(f"{_shortened(value)} for {type}")
    return value


def _number(value: Any, type: pa.DataType) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _MisfitError(f"{_shortened(value)} for {type}")
    if pa.types.is_floating(type):
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
        raise _MisfitError(f"{_shortened(value)} is no decimal number") from error


def _shortened(value: Any) -> str:
    text = dump_json(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _native_schema(schema: pa.Schema) -> pa.Schema | None:
    """The schema to have pyarrow parse into, to be cast from; None if it has no such types."""
    types = [_native_type(field.type) for field in schema]
    if any(type is None for type in types):
        return None
    return pa.schema(
        [pa.field(field.name, type) for field, type in zip(schema, types, strict=True) if type is not None]
    )


def _native_type(type: pa.DataType) -> pa.DataType | None:
    """What pyarrow's JSON parser can make that casts to `type`: it knows neither dictionaries nor dates, nor times and maps at all."""
    if pa.types.is_dictionary(type):
        return _native_type(type.value_type)
    if pa.types.is_date(type):
        return pa.string()
    if isinstance(type, pa.StructType):
        inner = [(field.name, _native_type(field.type)) for field in type]
        return (
            None
            if any(of is None for _, of in inner)
            else pa.struct([(name, of) for name, of in inner if of is not None])
        )
    if isinstance(type, pa.ListType):
        item = _native_type(type.value_type)
        return (
            None if item is None or pa.types.is_null(item) else pa.list_(item)
        )  # of nulls, pyarrow makes invalid arrays
    is_plain = (
        pa.types.is_null(type)
        or pa.types.is_boolean(type)
        or pa.types.is_integer(type)
        or pa.types.is_float32(type)
        or pa.types.is_float64(type)
        or pa.types.is_decimal128(type)
        or pa.types.is_decimal256(type)
        or pa.types.is_timestamp(type)
    )
    return type if is_plain or _is_text(type) else None
