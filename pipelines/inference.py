"""What shape JSON values have: counted in parallel, merged, and settled into one Arrow schema.

A `Shape` counts the kinds of values seen in one place; merging two adds their counts, so the result does not depend on who counted
what. Where kinds conflict the most frequent one wins (ties go to the earlier of `_GROUPS`), and rows that do not fit become dead
letters when they are read. Null fits every type, integers and floats widen, integers over 64 bits become decimals. Strings stay
strings, whatever they look like. Objects become structs, `{}` where nothing else is seen an empty map, and lists of nothing lists
of strings.

Blocks of lines are parsed by pyarrow; one that it refuses is sifted with orjson and parsed again, and counted line by line in Python
where kinds conflict.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import PlanError, RowError
from pipelines.json_lines import is_one_object_a_line, parse_block, parse_object

Kind = Literal["string", "object", "array", "integer", "decimal128", "decimal256", "float", "boolean"]

MAX_DEPTH = 64
MAX_FIELDS = 10_000

_GROUPS: tuple[tuple[Kind, ...], ...] = (
    ("string",),
    ("object",),
    ("array",),
    ("integer", "decimal128", "decimal256", "float"),
    ("boolean",),
)
_DIGITS_128, _DIGITS_256 = 38, 76
_DEEP_LINE_BYTES = 4096  # a shorter line cannot nest deep enough to overflow pyarrow's stack


@dataclass(slots=True)
class Shape:
    """How often each kind of value was seen in one place, and the shapes inside objects and arrays. Nulls are not counted."""

    counts: Counter[Kind] = field(default_factory=Counter)
    fields: dict[str, "Shape"] = field(default_factory=dict)
    item: "Shape | None" = None

    def merge(self, other: "Shape") -> None:
        """Adds what `other` counted; fields keep the order in which they were first seen."""
        self.counts.update(other.counts)
        for name, shape in other.fields.items():
            self.fields.setdefault(name, Shape()).merge(shape)
        if other.item is not None:
            self.item = self.item or Shape()
            self.item.merge(other.item)

    def keep(self, is_wanted: Callable[[str], bool]) -> None:
        """Forgets what is inside the other top-level fields; their names stay."""
        self.fields = {name: shape if is_wanted(name) else Shape() for name, shape in self.fields.items()}

    def num_fields(self) -> int:
        inner = self.item.num_fields() if self.item else 0
        return inner + sum(1 + shape.num_fields() for shape in self.fields.values())

    def to_schema(self) -> pa.Schema:
        """The Arrow schema of objects of this shape."""
        return pa.schema([pa.field(name, shape.to_type()) for name, shape in self.fields.items()])

    def check_width(self) -> None:
        """Raises:
        PlanError: there are more than `MAX_FIELDS` fields, as where names are values.
        """
        if self.num_fields() > MAX_FIELDS:
            widest = max(self.fields, key=lambda name: self.fields[name].num_fields())
            raise PlanError(
                f"the input's JSON objects have over {MAX_FIELDS} different fields, most of them in column {widest!r}; give "
                "input.schema the type string (kept as JSON text) or map<string, ...> for it, or leave it out of input.columns"
            )

    def to_type(self) -> pa.DataType:
        """The Arrow type that most of the values fit."""
        if not self.counts:
            return pa.null()
        group = max(_GROUPS, key=lambda kinds: (sum(self.counts[kind] for kind in kinds), -_GROUPS.index(kinds)))
        match group[0]:
            case "string":
                return pa.string()
            case "boolean":
                return pa.bool_()
            case "array":
                item = self.item.to_type() if self.item else pa.null()
                return pa.list_(pa.string() if pa.types.is_null(item) else item)
            case "object":
                return pa.struct([pa.field(name, shape.to_type()) for name, shape in self.fields.items()])
        return self._number_type()

    def _number_type(self) -> pa.DataType:
        if self.counts["float"]:
            return pa.float64()
        if self.counts["decimal256"]:
            return pa.decimal256(_DIGITS_256, 0)
        return pa.decimal128(_DIGITS_128, 0) if self.counts["decimal128"] else pa.int64()


def shape_of_lines(text: bytes, lines: Iterable[bytes], is_wanted: Callable[[str], bool]) -> Shape:
    """The shape of the objects on `lines`, which are the lines of `text` that are not blank, ends included.

    Bad lines count for nothing. Of the top-level fields that are not wanted only the names are kept.
    """
    shape = _fast_shape(text)
    if shape is None:
        objects = [(line.strip() + b"\n", row) for line in lines if (row := _object(line)) is not None]
        shape = _fast_shape(b"".join(line for line, _ in objects))
        if shape is None:
            shape = Shape()
            for _, row in objects:
                _count(shape, row, 0)
    shape.keep(is_wanted)
    return shape


def _object(line: bytes) -> dict[str, Any] | None:
    """The object on a line, None if it is a bad one."""
    try:
        return parse_object(line)
    except RowError:
        return None


def _fast_shape(text: bytes) -> Shape | None:
    """The shape as pyarrow sees it; None where it refuses the text, or would see it otherwise than line by line."""
    if not text.strip():
        return Shape()
    num_lines = is_one_object_a_line(text)
    if num_lines is None or not _is_shallow(text):
        return None
    table = parse_block(text, None)
    if table is None or table.num_rows != num_lines:
        return None
    shape = Shape(counts=Counter({"object": table.num_rows}))
    try:
        shape.fields = {name: _shape_of(table.column(name).chunks[0], 1) for name in table.column_names}
    except _NotExactError:
        return None
    return shape


def _is_shallow(text: bytes) -> bool:
    """Whether no line nests so deep that pyarrow's inference would overflow the stack: orjson bounds the depth of long ones."""
    start = 0
    while len(text) - start > _DEEP_LINE_BYTES:
        end = text.rfind(b"\n", start, start + _DEEP_LINE_BYTES)
        if end < 0:  # a long line
            end = text.find(b"\n", start)
            end = len(text) if end < 0 else end
            if _object(text[start:end]) is None:
                return False
        start = end + 1
    return True


class _NotExactError(Exception):
    """pyarrow made floats of integers that do not fit 64 bits."""


def _shape_of(array: "pa.Array[Any]", depth: int) -> Shape:
    type, num_values = array.type, len(array) - array.null_count
    if depth > MAX_DEPTH or not num_values:
        return Shape(fields={field.name: Shape() for field in type} if isinstance(type, pa.StructType) else {})
    if isinstance(array, pa.StructArray):
        fields = {field.name: _shape_of(array.field(index), depth + 1) for index, field in enumerate(type)}
        return Shape(counts=Counter({"object": num_values}), fields=fields)
    if isinstance(array, pa.ListArray):  # its values as they are: pyarrow makes invalid arrays of lists of nulls
        return Shape(counts=Counter({"array": num_values}), item=_shape_of(array.values, depth + 1))
    return Shape(counts=Counter({_kind_of_type(array): num_values}))


def _kind_of_type(array: "pa.Array[Any]") -> Kind:
    if pa.types.is_boolean(array.type):
        return "boolean"
    if pa.types.is_integer(array.type):
        return "integer"
    if pa.types.is_floating(array.type):
        if pc.any(pc.greater_equal(pc.abs(array), pa.scalar(2.0**63))).as_py():
            raise _NotExactError
        return "float"
    return "string"  # strings, and the timestamps that pyarrow takes some of them for


def _count(shape: Shape, value: Any, depth: int) -> None:
    """Adds one JSON value."""
    if value is None or depth > MAX_DEPTH:
        return
    if isinstance(value, dict):
        shape.counts["object"] += 1
        for name, inner in value.items():
            field = shape.fields.get(name)
            if field is None:
                field = shape.fields[name] = Shape()
            _count(field, inner, depth + 1)
    elif isinstance(value, list):
        shape.counts["array"] += 1
        shape.item = shape.item or Shape()
        for inner in value:
            _count(shape.item, inner, depth + 1)
    else:
        shape.counts[_kind_of_value(value)] += 1


def _kind_of_value(value: str | bool | int | float) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, float):
        return "float"
    if -(2**63) <= value < 2**63:
        return "integer"
    digits = len(str(abs(value)))
    return "decimal128" if digits <= _DIGITS_128 else "decimal256" if digits <= _DIGITS_256 else "float"
