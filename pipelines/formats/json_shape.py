"""Which Arrow type holds a JSON column exactly: found in parallel, merged, and settled into one schema.

A `ValueShape` gathers what is seen in one place. A type is exact if every value comes back from it as
`json.loads` gave it: nulls fit any type; integers beside floats are floats as long as a float holds each of
them; integers over 64 bits are decimals; objects are structs if all of them have the same keys. Strings stay
strings, whatever they look like. Where no type is exact, the column is JSON text, and its field is marked with
the reason (`pipelines.formats.schema.json_field`). What is inside such a place is not looked at any longer, so
that memory does not grow with keys that are values. The outcome does not depend on who saw which row.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from pipelines.errors import PlanError, RowError
from pipelines.formats.json_line import is_encodable, parse_object
from pipelines.formats.schema import json_field

logger = logging.getLogger(__name__)

MAX_COLUMNS = 10_000
MAX_KEYS = 1_000
MAX_TYPE_DEPTH = 64

_MAX_NAMES = 1_000
_INT64: Final = (-(2**63), 2**63 - 1)
_EXACT_FLOAT: Final = (-(2**53), 2**53)  # the integers that float64 holds one by one
_DIGITS_128, _DIGITS_256 = 38, 76
_KINDS: Mapping[type, str] = {
    str: "texts",
    bool: "booleans",
    int: "integers",
    float: "floats",
    dict: "objects",
    list: "arrays",
}
_NUMBERS = {"integers", "floats"}


@dataclass(slots=True)
class ValueShape:
    """What was seen in one place: kinds of values, the range of integers, the shapes inside arrays, and inside objects while those
    have the same keys (`has_one_form`)."""

    kinds: set[str] = field(default_factory=set)
    low: int = 0
    high: int = 0
    item: "ValueShape | None" = None
    fields: "dict[str, ValueShape] | None" = None
    has_one_form: bool = True
    has_broken_text: bool = False
    is_too_deep: bool = False

    @property
    def is_mixed(self) -> bool:
        """Whether kinds of values were seen that no type has in common."""
        return len(self.kinds) > 1 and self.kinds != _NUMBERS

    def add(self, value: Any, depth: int = 1) -> None:
        """Adds one JSON value. Nulls leave no trace."""
        if value is None:
            return
        kind = type(value)
        self.kinds.add(_KINDS[kind])
        if kind is int:
            self.low, self.high = min(self.low, value), max(self.high, value)
        elif kind is str:
            self.has_broken_text = self.has_broken_text or not (value.isascii() or is_encodable(value))
        elif kind is dict or kind is list:
            self._add_inside(value, depth)

    def _add_inside(self, value: Any, depth: int) -> None:
        if self.is_mixed:
            self.fields = self.item = None
        elif depth >= MAX_TYPE_DEPTH:
            self.is_too_deep = True
        elif isinstance(value, list):
            self.item = self.item or ValueShape()
            for inner in value:
                self.item.add(inner, depth + 1)
        else:
            for name, shape in self._fields_of(value):
                shape.add(value[name], depth + 1)

    def _fields_of(self, names: Mapping[str, Any]) -> list[tuple[str, "ValueShape"]]:
        """The shapes of an object's keys; none once objects have turned out to have no form in common."""
        if self.fields is None and self.has_one_form:
            self.fields = {name: ValueShape() for name in names}
            self.has_one_form = len(names) <= MAX_KEYS and all(map(is_encodable, names))
        self.has_one_form = self.has_one_form and self.fields is not None and self.fields.keys() == names.keys()
        if not self.has_one_form:
            self.fields = None
        return list((self.fields or {}).items())

    def merge(self, other: "ValueShape") -> None:
        """Adds what `other` saw."""
        self.kinds |= other.kinds
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.has_one_form = self.has_one_form and other.has_one_form
        self.has_broken_text = self.has_broken_text or other.has_broken_text
        self.is_too_deep = self.is_too_deep or other.is_too_deep
        if self.is_mixed or not self.has_one_form:
            self.fields = None
        elif other.fields is not None:
            for name, shape in self._fields_of(other.fields):
                shape.merge(other.fields[name])
        if self.is_mixed:
            self.item = None
        elif other.item is not None:
            self.item = self.item or ValueShape()
            self.item.merge(other.item)

    def to_type(self) -> pa.DataType:
        """The exact type.

        Raises:
            NoExactTypeError: no type is exact; the text is the reason.
        """
        self._check_one_kind()
        exact: pa.DataType
        match sorted(self.kinds):
            case []:
                exact = pa.null()
            case ["texts"]:
                exact = pa.string()
            case ["booleans"]:
                exact = pa.bool_()
            case ["integers"]:
                exact = self._integer_type()
            case ["arrays"]:
                exact = self._list_type()
            case ["objects"]:
                exact = self._struct_type()
            case _:
                exact = self._float_type()
        return exact

    def _check_one_kind(self) -> None:
        if self.is_mixed:
            raise NoExactTypeError(" beside ".join(sorted(self.kinds)))
        if self.has_broken_text:
            raise NoExactTypeError("text with half of a surrogate pair")
        if self.is_too_deep:
            raise NoExactTypeError(f"values nested over {MAX_TYPE_DEPTH} deep")
        if not self.has_one_form:
            raise NoExactTypeError(f"objects that do not all have the same keys, or have over {MAX_KEYS}")

    def _integer_type(self) -> pa.DataType:
        if _INT64[0] <= self.low and self.high <= _INT64[1]:
            return pa.int64()
        largest = max(-self.low, self.high)
        if largest < 10**_DIGITS_128:
            return pa.decimal128(_DIGITS_128, 0)
        if largest < 10**_DIGITS_256:
            return pa.decimal256(_DIGITS_256, 0)
        raise NoExactTypeError(f"integers of over {_DIGITS_256} digits")

    def _float_type(self) -> pa.DataType:
        if self.low < _EXACT_FLOAT[0] or self.high > _EXACT_FLOAT[1]:
            raise NoExactTypeError("integers over 2**53 beside floats")
        return pa.float64()

    def _list_type(self) -> pa.DataType:
        item = pa.null() if self.item is None else self.item.to_type()
        return pa.list_(pa.string() if pa.types.is_null(item) else item)

    def _struct_type(self) -> pa.DataType:
        if not self.fields:
            raise NoExactTypeError("objects without keys")
        return pa.struct([pa.field(name, shape.to_type()) for name, shape in self.fields.items()])


class NoExactTypeError(Exception):
    """No Arrow type holds the values of a place exactly."""


@dataclass(slots=True)
class RowShape:
    """The columns of JSON rows in the order in which they were first seen; None stands for one
    that is not read."""

    columns: dict[str, ValueShape | None] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], is_wanted: Callable[[str], bool]) -> None:
        """Adds one row; of columns that are not wanted only the first names are kept, to be told."""
        for name, value in row.items():
            if name in self.columns:
                shape = self.columns[name]
            elif is_wanted(name):
                shape = self.columns[name] = ValueShape()
                self.check_width()
            else:
                shape = None
                if len(self.columns) < _MAX_NAMES:
                    self.columns[name] = None
            if shape is not None:
                shape.add(value)

    def merge(self, other: "RowShape") -> None:
        """Adds what `other` saw."""
        for name, theirs in other.columns.items():
            ours = self.columns.get(name)
            if ours is None or theirs is None:
                self.columns[name] = ours or theirs
            else:
                ours.merge(theirs)

    def check_width(self) -> None:
        """Raises:
        PlanError: there are more than `MAX_COLUMNS` columns, as where names are values.
        """
        if len(self.columns) <= MAX_COLUMNS:
            return
        if sum(shape is not None for shape in self.columns.values()) > MAX_COLUMNS:
            raise PlanError(
                f"the input's rows have over {MAX_COLUMNS} different columns, as if their names were values; name those "
                "to be carried in input.columns"
            )

    def to_schema(self) -> pa.Schema:
        """The Arrow schema of the rows: exact types, and JSON text where no type is exact."""
        return pa.schema([_field(name, shape or ValueShape()) for name, shape in self.columns.items()])


def _field(name: str, shape: ValueShape) -> "pa.Field[Any]":
    try:
        return pa.field(name, shape.to_type())
    except NoExactTypeError as reason:
        return json_field(name, str(reason))


def shape_of_lines(lines: Iterable[bytes], is_wanted: Callable[[str], bool]) -> RowShape:
    """The shape of the objects on `lines`. Bad lines, which will be dead letters, count for nothing."""
    shape = RowShape()
    for line in lines:
        try:
            row = parse_object(line)
            shape.add(row, is_wanted)
        except PlanError:
            raise
        except RowError:
            continue
        except Exception:  # the row boundary: reading it will tell, and set it apart
            logger.warning("a row counts for nothing in the plan", exc_info=True)
    return shape
