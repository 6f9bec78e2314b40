"""Which columns a run reads, and the Arrow types they are given by name.

`Columns` says what the job needs of its input; `select_columns` picks that from what the input holds; `parse_type` reads a type as
`input.schema` writes it, which is also how Arrow prints one.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from pipelines.errors import PlanError
from pipelines.formats.row_mapping import in_row

_ARROW: Any = pa  # its stubs take literal names only, and these come from a spec
_LISTS: Mapping[str, Callable[[pa.DataType], pa.DataType]] = {"list": pa.list_, "large_list": pa.large_list}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:,\s*tz=([^\]]+))?\]")
_DECIMAL = re.compile(r"decimal(128|256)\(\s*(\d+)\s*,\s*(-?\d+)\s*\)")
_MAX_NAMES_SHOWN = 20
_PLAIN_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_BYTES: Mapping[Any, pa.DataType] = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
FOLDER_MARK = b"millrace.folder"
"""The key of a field's metadata that says that folders of that name give the column, and no line."""
JSON_MARK = b"millrace.json"
"""The key of a field's metadata that says that its text is JSON; the value is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What the job needs of its input.

    `carried` columns go to the output (None: all there are), `required` ones are named by the task, `optional` ones are read if there.
    With `reads_all` the task reads whatever columns there are.
    """

    carried: tuple[str, ...] | None = None
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    reads_all: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that have to be there: carried ones in the job's order, then those that only the task names."""
        return tuple(dict.fromkeys((*(self.carried or ()), *sorted(self.required))))

    @property
    def read(self) -> frozenset[str] | None:
        """The columns that the task reads, if they are there; None: all there are."""
        return None if self.reads_all else self.required | self.optional

    def is_needed(self, name: str) -> bool:
        return self.reads_all or self.is_named(name)

    def is_named(self, name: str) -> bool:
        """Whether a column is carried, or read by its name."""
        return self.carried is None or name in self.carried or name in self.required or name in self.optional

    def check(self, available: tuple[str, ...], place: str) -> None:
        """Raises:
        PlanError: a named column is not among the available ones.
        """
        missing = [name for name in self.named if name not in available]
        if missing:
            hints = "".join(column_hint(name, available) for name in missing)
            raise PlanError(
                f"{place} has no column {', '.join(missing)}; it has: {shown_names(available) or 'no columns'}{hints}",
                missing_columns=missing,
            )


def shown_names(names: Sequence[str]) -> str:
    """Names of columns for an error text, at most `_MAX_NAMES_SHOWN` of them."""
    return ", ".join(names[:_MAX_NAMES_SHOWN]) + (", ..." if len(names) > _MAX_NAMES_SHOWN else "")


def column_hint(missing: str, available: Sequence[str]) -> str:
    """Which column may be meant by one that there is not: a misspelt one, or one of whose name a template takes only a part."""
    word = re.compile(rf"(?<!\w){re.escape(missing)}(?!\w)")
    longer = next((name for name in available if not name.isidentifier() and word.search(name)), None)
    if longer is not None:
        return f"; a column named {json.dumps(longer, ensure_ascii=False)} is written {{{{ {in_row(longer)} }}}} in a template"
    close = difflib.get_close_matches(missing, available, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def select_columns(schema: pa.Schema, columns: Columns) -> pa.Schema:
    """The run's schema: the needed columns without metadata of their own, carried ones first, types that Arrow cannot write given up.

    Raises:
        PlanError: nothing is left to read.
    """
    order = [name for name in dict.fromkeys((*(columns.carried or ()), *schema.names)) if columns.is_needed(name)]
    fields = [_plain_field(schema.field(name)) for name in order]
    if not fields and not columns.reads_all:
        raise PlanError("the job reads no column of its input: name one in the task's template or in input.columns")
    return pa.schema(fields)


def _plain_field(field: "pa.Field[Any]") -> "pa.Field[Any]":
    marks = {name: value for name, value in (field.metadata or {}).items() if name in (JSON_MARK, FOLDER_MARK)}
    return pa.field(field.name, plain_type(field.type), metadata=marks or None)


def json_field(name: str, reason: str) -> "pa.Field[Any]":
    """The field of a column that is carried as JSON text, because no Arrow type holds it exactly for this reason."""
    return pa.field(name, pa.string(), metadata={JSON_MARK: reason.encode()})


def json_reason(field: "pa.Field[Any]") -> str | None:
    """Why a column is carried as JSON text, None if it is not."""
    reason = (field.metadata or {}).get(JSON_MARK)
    return None if reason is None else reason.decode()


def plain_type(type: pa.DataType) -> pa.DataType:
    """The type that a column of `type` is read and carried in: `decoded`, except for a dictionary
    of texts, which stays one."""
    plain = decoded(type)
    if not isinstance(type, pa.DictionaryType) or not (pa.types.is_string(plain) or pa.types.is_large_string(plain)):
        return plain
    is_plain = type.value_type == plain and pa.types.is_signed_integer(type.index_type) and not type.ordered
    return type if is_plain else dictionary_of(plain)


def decoded(type: pa.DataType) -> pa.DataType:
    """The plainest type with the same values: nothing encoded, no views, no narrow decimals, no extension but UUID; an empty map for an
    empty struct, which Parquet cannot hold."""
    match type:
        case pa.DictionaryType() | pa.RunEndEncodedType():
            plain = decoded(type.value_type)
        case pa.StructType():
            fields = [pa.field(field.name, decoded(field.type)) for field in type]
            plain = pa.struct(fields) if fields else pa.map_(pa.string(), pa.string())
        case pa.MapType():
            plain = pa.map_(decoded(type.key_type), decoded(type.item_type))
        case pa.FixedSizeListType():
            plain = pa.list_(decoded(type.value_type), type.list_size)
        case pa.LargeListType() | pa.LargeListViewType():
            plain = pa.large_list(decoded(type.value_type))
        case pa.ListType() | pa.ListViewType():
            plain = pa.list_(decoded(type.value_type))
        case pa.Decimal32Type() | pa.Decimal64Type():
            plain = pa.decimal128(type.precision, type.scale)
        case pa.UuidType():
            plain = type
        case pa.Bool8Type():
            plain = pa.bool_()
        case pa.BaseExtensionType():
            plain = decoded(type.storage_type)
        case _:
            plain = cast("pa.DataType", _PLAIN_VIEWS.get(type, type))
    return plain


def with_bytes(type: pa.DataType) -> pa.DataType:
    """The type of the same buffers with bytes in the place of all text, and storage in that of extensions."""
    match type:
        case pa.DictionaryType():
            bare = cast("pa.DataType", _ARROW.dictionary(type.index_type, with_bytes(type.value_type), type.ordered))
        case pa.RunEndEncodedType():
            bare = cast("pa.DataType", _ARROW.run_end_encoded(type.run_end_type, with_bytes(type.value_type)))
        case pa.StructType():
            bare = pa.struct([field.with_type(with_bytes(field.type)) for field in type])
        case pa.MapType():
            bare = pa.map_(with_bytes(type.key_type), with_bytes(type.item_type))
        case pa.FixedSizeListType():
            bare = pa.list_(with_bytes(type.value_type), type.list_size)
        case pa.LargeListType():
            bare = pa.large_list(with_bytes(type.value_type))
        case pa.ListType():
            bare = pa.list_(with_bytes(type.value_type))
        case pa.LargeListViewType():
            bare = pa.large_list_view(with_bytes(type.value_type))
        case pa.ListViewType():
            bare = pa.list_view(with_bytes(type.value_type))
        case pa.BaseExtensionType():
            bare = with_bytes(type.storage_type)
        case _:
            bare = _BYTES.get(type, type)
    return bare


def dictionary_of(values: pa.DataType) -> pa.DataType:
    """The type of a column of repeated values."""
    return cast("pa.DataType", _ARROW.dictionary(pa.int32(), values))


def parse_types(types: Mapping[str, str]) -> dict[str, pa.DataType]:
    """Reads `input.schema`.

    Raises:
        PlanError: a type is not known; the text names the column.
    """
    parsed = {}
    for column, text in types.items():
        try:
            parsed[column] = parse_type(text)
        except ValueError as error:
            raise PlanError(
                f"input.schema gives column {column!r} the type {text!r}: {error}; give an Arrow type such as string, int64, "
                "double, bool, timestamp[us], decimal128(10, 2), list<string>, struct<a: int64>, map<string, double>",
                place="input.schema",
            ) from error
    return parsed


def parse_type(text: str) -> pa.DataType:
    """Reads an Arrow type by its name.

    Raises:
        ValueError: it names none.
    """
    text = text.strip()
    head, bracket, rest = text.partition("<")
    if bracket:
        if not rest.endswith(">"):
            raise ValueError(f"{text!r} has no closing '>'")
        return _nested(head.strip(), rest[:-1])
    if match := _TIMESTAMP.fullmatch(text):
        return cast("pa.DataType", _ARROW.timestamp(match[1], match[2]))
    if match := _DECIMAL.fullmatch(text):
        decimal = _ARROW.decimal128 if match[1] == "128" else _ARROW.decimal256
        return cast("pa.DataType", decimal(int(match[2]), int(match[3])))
    return cast("pa.DataType", _ARROW.type_for_alias(text))


def _nested(head: str, inside: str) -> pa.DataType:
    parts = list(_split(inside))
    if head in _LISTS and len(parts) == 1:
        return _LISTS[head](parse_type(_without_name(parts[0])))
    if head == "map" and len(parts) == 2:
        return pa.map_(parse_type(_without_name(parts[0])), parse_type(_without_name(parts[1])))
    if head == "dictionary" and len(parts) == 1:
        return dictionary_of(parse_type(parts[0]))
    if head == "struct" and parts and all(":" in part for part in parts):
        pairs = [part.split(":", 1) for part in parts]
        return pa.struct([pa.field(name.strip(), parse_type(type)) for name, type in pairs])
    raise ValueError(f"{head!r} with {len(parts)} types in it is not known")


def _split(text: str) -> Iterator[str]:
    """Splits at commas that stand in no bracket."""
    depth = start = 0
    for position, char in enumerate(text):
        depth += (char in "<([") - (char in ">)]")
        if char == "," and depth == 0:
            yield text[start:position].strip()
            start = position + 1
    if text[start:].strip():
        yield text[start:].strip()


def _without_name(text: str) -> str:
    """A list's element type, which Arrow prints with the name of its field before it."""
    return re.sub(r"^(item|element|key|value)\s*:\s*", "", text)
