"""Arrow values as JSON: what JSONL output and dead letters hold.

Numbers, strings, lists, structs and maps are themselves; decimals are numbers with all their digits; timestamps, dates and times are
ISO 8601 text; durations are whole numbers of their unit; binary is base64 text; UUIDs are their 36 characters; NaN and the infinities
are null, for JSON has none. Text that is not valid UTF-8 is kept as `{"_raw_base64": ...}`. `JsonText` is JSON already, and goes out as
it is.

Usage: `json_rows(table)` gives one dict a row, `dump_json(value)` its bytes without a newline.
"""

import base64
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.schema import decoded
from pipelines.formats.times import beyond_text

Values = list[Any]
RAW_KEY = "_raw_base64"
_BARE_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")


class JsonText(bytes):
    """A JSON value as text."""


def raw_value(raw: bytes) -> dict[str, str]:
    """Bytes that are not text, as a JSON value."""
    return {RAW_KEY: base64.b64encode(raw).decode()}


def dump_json(value: Any) -> bytes:
    """`value` as compact JSON in UTF-8. Numbers as keys are written as texts, as `json` writes them."""
    try:
        return orjson.dumps(value, default=_written)
    except TypeError:  # an integer over 64 bits, a surrogate, or a number as key
        plain = _wide_as_decimals(_without_surrogates(value))
        return orjson.dumps(plain, default=_written, option=orjson.OPT_NON_STR_KEYS)


def _written(value: object) -> orjson.Fragment:
    if isinstance(value, JsonText):
        return orjson.Fragment(bytes(value))
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value) if value.is_finite() else "null")
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _without_surrogates(value: Any) -> Any:
    """The JSON value with U+FFFD for every surrogate that is not half of a pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(item) for name, item in value.items()}
    return value


def _wide_as_decimals(value: Any) -> Any:
    """The same JSON value with `Decimal` for integers that orjson refuses."""
    if isinstance(value, dict):
        return {name: _wide_as_decimals(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_wide_as_decimals(item) for item in value]
    is_wide = isinstance(value, int) and not -(2**63) <= value < 2**64
    return Decimal(value) if is_wide else value


def json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of `table`, each a dict of JSON values by column name; decimals are `Decimal`, which `dump_json` knows."""
    columns = [_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: "pa.ChunkedArray[Any]") -> Values:
    return [value for chunk in column.chunks for value in json_values(chunk)]


def json_values(array: "pa.Array[Any]") -> Values:
    """The JSON values of an array, null as None."""
    convert = next((convert for belongs, convert in _CONVERTERS if belongs(array.type)), None)
    return array.to_pylist() if convert is None else convert(array)


def _dictionary_values(array: "pa.Array[Any]") -> Values:
    return json_values(array.cast(decoded(array.type)))


def _uuid_values(array: Any) -> Values:
    return [None if value is None else str(value) for value in array.to_pylist()]


def _extension_values(array: Any) -> Values:
    return json_values(array.storage)


def _struct_values(array: Any) -> Values:
    names = [field.name for field in array.type]
    fields = [json_values(values) for values in array.flatten()]
    rows = zip(*fields, strict=True) if fields else ((),) * len(array)
    valid = array.is_valid().to_pylist()
    return [dict(zip(names, row, strict=True)) if is_valid else None for row, is_valid in zip(rows, valid, strict=True)]


def _list_values(array: Any) -> Values:
    return _grouped(array, json_values(array.flatten()), pc.list_value_length(array).to_pylist())


def _map_values(array: Any) -> Values:
    entries = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    return [
        None if pairs is None else {_key(pair["key"]): pair["value"] for pair in pairs}
        for pairs in _list_values(entries)
    ]


def _key(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value).decode()


def _grouped(array: Any, items: Values, lengths: Sequence[int | None]) -> Values:
    groups: Values = []
    start = 0
    for length in lengths:
        groups.append(None if length is None else items[start : start + length])
        start += length or 0
    assert start == len(items), f"{array.type} has {len(items)} items, and lengths for {start}"
    return groups


def _text_values(array: "pa.Array[Any]") -> Values:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [None if raw is None else _text_or_raw(raw) for raw in array.cast(pa.large_binary()).to_pylist()]


def _text_or_raw(raw: bytes) -> str | dict[str, str]:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw_value(raw)


def _binary_values(array: "pa.Array[Any]") -> Values:
    return [None if raw is None else base64.b64encode(raw).decode() for raw in array.to_pylist()]


def _time_values(array: "pa.Array[Any]") -> Values:
    is_beyond = beyond_text(array)
    shown: Any = pc.if_else(pa.array(is_beyond), pa.scalar(None, array.type), array) if is_beyond.any() else array
    texts = shown.cast(pa.string()).to_pylist()
    values: Values = [None if text is None else _BARE_OFFSET.sub(r"\1:\2", text.replace(" ", "T", 1)) for text in texts]
    for place in np.flatnonzero(is_beyond).tolist():
        values[place] = array[place].value  # the input of a dead letter: no text shows it, its number does
    return values


def _duration_values(array: "pa.Array[Any]") -> Values:
    return array.cast(pa.int64()).to_pylist()


def _is_uuid(type: pa.DataType) -> bool:
    return isinstance(type, pa.UuidType)


def _is_extension(type: pa.DataType) -> bool:
    return isinstance(type, pa.BaseExtensionType)


_Converter = tuple[Callable[[pa.DataType], bool], Callable[["pa.Array[Any]"], Values]]
_CONVERTERS: tuple[_Converter, ...] = (
    (pa.types.is_string, _text_values),
    (pa.types.is_large_string, _text_values),
    (pa.types.is_dictionary, _dictionary_values),
    (pa.types.is_struct, _struct_values),
    (pa.types.is_map, _map_values),
    (pa.types.is_list, _list_values),
    (pa.types.is_large_list, _list_values),
    (pa.types.is_fixed_size_list, _list_values),
    (pa.types.is_binary, _binary_values),
    (pa.types.is_large_binary, _binary_values),
    (pa.types.is_fixed_size_binary, _binary_values),
    (pa.types.is_duration, _duration_values),
    (pa.types.is_temporal, _time_values),
    (_is_uuid, _uuid_values),
    (_is_extension, _extension_values),
)
