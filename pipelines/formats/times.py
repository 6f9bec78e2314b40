"""Times as text and as numbers: which texts are timestamps, and which timestamps
have no text.

A text is ISO 8601 with a `T` or a space, with or without an offset, with at most as many digits of a second as the type holds. One
without an offset is UTC's, and a type without a time zone holds UTC's clock: so the same texts give the same instants in CSV and
JSONL, whatever the type.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_ARROW: Any = pa
_COMPUTE: Any = pc
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_OFFSET = r"\d:\d\d.*([Zz]|[+-]\d\d(:?\d\d)?)$"
_PRINTED_DAYS = (
    -12_687_000,
    11_248_000,
)  # from 1970: within the years -32767 to 32766, which Arrow prints in every time zone
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}


def parse_timestamps(texts: Any, type: Any) -> Any:
    """A column of texts as `type`.

    Raises:
        pa.ArrowInvalid: one of them is not a timestamp.
    """
    texts = texts.cast(pa.string())
    nothing = pa.scalar(None, pa.string())
    has_offset = _COMPUTE.match_substring_regex(texts, _OFFSET)
    bare, utc = _ARROW.timestamp(type.unit), _ARROW.timestamp(type.unit, "UTC")
    without = _COMPUTE.if_else(has_offset, nothing, texts).cast(bare).cast(utc)
    with_offset = _COMPUTE.if_else(has_offset, texts, nothing).cast(utc)
    return _COMPUTE.coalesce(without, with_offset).cast(type)


def has_dates(type: pa.DataType) -> bool:
    """Whether values of this type hold dates or timestamps anywhere."""
    if pa.types.is_nested(type):
        return any(has_dates(type.field(index).type) for index in range(type.num_fields))
    return bool(pa.types.is_date(type) or pa.types.is_timestamp(type))


def beyond_text(array: Any) -> BoolArray:
    """Which values of an array [N] hold a date or timestamp of a year that Arrow cannot print, such as a database's infinity."""
    type = array.type
    if not has_dates(type):
        return np.zeros(len(array), np.bool_)
    if pa.types.is_map(type):
        array = array.cast(pa.list_(pa.struct([("key", type.key_type), ("value", type.item_type)])))
    if isinstance(type, pa.StructType):
        return np.asarray(np.logical_or.reduce([beyond_text(values) for values in array.flatten()]))
    if pa.types.is_nested(type):
        return _any_in_lists(beyond_text(array.flatten()), pc.list_value_length(array).fill_null(0).to_numpy())
    per_day = 1 if pa.types.is_date32(type) else _PER_DAY.get("ms" if pa.types.is_date64(type) else type.unit)
    if per_day is None:
        return np.zeros(len(array), np.bool_)  # nanoseconds end in 2262
    numbers = array.cast(pa.int32() if pa.types.is_date32(type) else pa.int64()).fill_null(0).to_numpy()
    first, end = (days * per_day for days in _PRINTED_DAYS)
    return np.asarray((numbers < first) | (numbers >= end))


def _any_in_lists(is_beyond: BoolArray, lengths: Int64Array) -> BoolArray:
    """Whether any value of each list is, out of those of all lists one after the other."""
    counts = np.concatenate(([0], np.cumsum(is_beyond)))
    ends = np.cumsum(lengths)
    return np.asarray(counts[ends] > counts[ends - lengths])
