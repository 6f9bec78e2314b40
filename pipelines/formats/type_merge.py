"""The type that holds the values of two others exactly, if there is one.

Integers of different widths and signs, integers beside decimals, and decimals of different precision come together in a type that
holds all their digits; a decimal beside a float has none. An integer beside a float becomes a float: one over 2**53 does not fit, and
its row is told so when it is read. Timestamps and times take the finer unit; different time zones become UTC, the same instants; a
timestamp with a zone and one without have nothing in common. A struct has the fields of both.
"""

from collections.abc import Callable
from typing import Any, cast

import pyarrow as pa

from pipelines.formats.schema import decoded, dictionary_of

_ARROW: Any = pa  # its stubs take literals only
_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
_FLOATS = ((pa.float16(), 11), (pa.float32(), 24), (pa.float64(), 53))  # each with the bits of an integer that it holds
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}  # of the largest integer of that many bits
_UNITS = ("s", "ms", "us", "ns")
_MAX_DIGITS_128, _MAX_DIGITS = 38, 76


def merge_types(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both, None if no type does."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if isinstance(one, pa.DictionaryType) and isinstance(other, pa.DictionaryType):
        values = merge_types(one.value_type, other.value_type)
        return None if values is None else dictionary_of(values)
    one, other = decoded(one), decoded(other)
    if one == other:
        return one
    return next((merge(one, other) for belongs, merge in _MERGES if belongs(one) and belongs(other)), None)


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))


def _numbers(one: Any, other: Any) -> pa.DataType | None:
    if pa.types.is_floating(one) or pa.types.is_floating(other):
        return None if pa.types.is_decimal(one) or pa.types.is_decimal(other) else _floats(one, other)
    if pa.types.is_integer(one) and pa.types.is_integer(other):
        return _integers(one, other)
    return _decimals(one, other)


def _floats(one: Any, other: Any) -> pa.DataType:
    """The narrowest float that holds both; the widest where none holds all integers."""
    needed = max(map(_bits, (one, other)))
    return next((type for type, bits in _FLOATS if bits >= needed), pa.float64())


def _bits(type: Any) -> int:
    if pa.types.is_integer(type):
        return int(type.bit_width) - (type in _SIGNED)
    return next(bits for float_type, bits in _FLOATS if float_type == type)


def _integers(one: Any, other: Any) -> pa.DataType:
    if (one in _SIGNED) == (other in _SIGNED):
        return cast("pa.DataType", max(one, other, key=lambda integer: integer.bit_width))
    unsigned, signed = (one, other) if one in _UNSIGNED else (other, one)
    wide = [type for type in _SIGNED if type.bit_width > unsigned.bit_width and type.bit_width >= signed.bit_width]
    return wide[0] if wide else pa.decimal128(_DIGITS[64], 0)


def _decimals(one: Any, other: Any) -> pa.DataType | None:
    """All digits of both before the point and behind it."""
    scale = max(_scale(one), _scale(other), 0)
    digits = max(_whole_digits(one), _whole_digits(other), 1) + scale
    if digits > _MAX_DIGITS:
        return None
    is_wide = digits > _MAX_DIGITS_128 or pa.types.is_decimal256(one) or pa.types.is_decimal256(other)
    return pa.decimal256(digits, scale) if is_wide else pa.decimal128(digits, scale)


def _scale(type: Any) -> int:
    return 0 if pa.types.is_integer(type) else int(type.scale)


def _whole_digits(type: Any) -> int:
    return _DIGITS[type.bit_width] if pa.types.is_integer(type) else int(type.precision - type.scale)


def _is_text(type: pa.DataType) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def _is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type) or pa.types.is_fixed_size_binary(type))


def _binaries(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pa.large_binary() in (one, other) else pa.binary()


def _timestamps(one: Any, other: Any) -> pa.DataType | None:
    if (one.tz is None) != (other.tz is None):
        return None
    zone = one.tz if one.tz == other.tz else "UTC"
    return cast("pa.DataType", _ARROW.timestamp(_finer(one, other), zone))


def _times(one: Any, other: Any) -> pa.DataType:
    unit = _finer(one, other)
    return cast("pa.DataType", _ARROW.time32(unit) if unit in ("s", "ms") else _ARROW.time64(unit))


def _durations(one: Any, other: Any) -> pa.DataType:
    return cast("pa.DataType", _ARROW.duration(_finer(one, other)))


def _finer(one: Any, other: Any) -> str:
    return _UNITS[max(_UNITS.index(one.unit), _UNITS.index(other.unit))]


def _is_list(type: pa.DataType) -> bool:
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type))


def _lists(one: Any, other: Any) -> pa.DataType | None:
    item = merge_types(one.value_type, other.value_type)
    if item is None:
        return None
    if pa.types.is_large_list(one) or pa.types.is_large_list(other):
        return pa.large_list(item)
    sizes = {type.list_size if isinstance(type, pa.FixedSizeListType) else None for type in (one, other)}
    size = sizes.pop() if len(sizes) == 1 else None
    return pa.list_(item) if size is None else pa.list_(item, size)


def _structs(one: Any, other: Any) -> pa.DataType | None:
    fields = {field.name: field.type for field in one}
    if len(fields) < one.num_fields or len({field.name for field in other}) < other.num_fields:
        return None  # a name given twice
    for field in other:
        merged = merge_types(fields.get(field.name, field.type), field.type)
        if merged is None:
            return None
        fields[field.name] = merged
    return pa.struct([pa.field(name, type) for name, type in fields.items()])


def _maps(one: Any, other: Any) -> pa.DataType | None:
    key, item = merge_types(one.key_type, other.key_type), merge_types(one.item_type, other.item_type)
    return None if key is None or item is None else pa.map_(key, item)


_MERGES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any], pa.DataType | None]], ...] = (
    (_is_number, _numbers),
    (_is_text, lambda _one, _other: pa.large_string()),
    (_is_binary, _binaries),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_time, _times),
    (pa.types.is_duration, _durations),
    (_is_list, _lists),
    (pa.types.is_struct, _structs),
    (pa.types.is_map, _maps),
)
