"""Types by name, columns by need, and one schema of many files."""

import pyarrow as pa
import pytest

from pipelines.errors import PlanError
from pipelines.formats.merging import SchemaMerger
from pipelines.formats.schema import Columns, parse_type, parse_types, select_columns

TYPES = [
    pa.string(),
    pa.int64(),
    pa.float64(),
    pa.bool_(),
    pa.date32(),
    pa.binary(),
    pa.large_string(),
    pa.timestamp("us"),
    pa.timestamp("ns", "Europe/Berlin"),
    pa.decimal128(10, 2),
    pa.decimal256(76, 0),
    pa.list_(pa.string()),
    pa.large_list(pa.list_(pa.decimal128(5, 1))),
    pa.struct([("a", pa.int64()), ("b c", pa.list_(pa.struct([("d", pa.string())])))]),
]


@pytest.mark.parametrize("type", TYPES)
def test_a_type_is_read_as_arrow_prints_it(type: pa.DataType) -> None:
    assert parse_type(str(type)) == type


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("list<string>", pa.list_(pa.string())),
        ("map<string, double>", pa.map_(pa.string(), pa.float64())),
        ("dictionary<string>", pa.dictionary(pa.int32(), pa.string())),
        (" struct<a: int64> ", pa.struct([("a", pa.int64())])),
    ],
)
def test_a_type_is_read_in_short(text: str, type: pa.DataType) -> None:
    assert parse_type(text) == type


@pytest.mark.parametrize(
    "text", ["text", "list<string", "list<>", "map<string>", "struct<int64>", "set<string>", "", "decimal128(99, 0)"]
)
def test_an_unknown_type_is_refused_with_column_and_examples(text: str) -> None:
    with pytest.raises(PlanError, match=r"column 'a' the type .* such as string, int64"):
        parse_types({"a": text})


def test_carried_columns_come_first_in_the_order_of_the_job() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("c", pa.int64()), ("d", pa.int64())])
    columns = Columns(carried=("d", "a"), required=frozenset({"b"}), optional=frozenset({"x"}))
    assert select_columns(schema, columns).names == ["d", "a", "b"]
    assert select_columns(schema, Columns(required=frozenset({"b"}))).names == ["a", "b", "c", "d"]


def test_a_job_that_reads_nothing_is_refused() -> None:
    with pytest.raises(PlanError, match="reads no column"):
        select_columns(pa.schema([("a", pa.int64())]), Columns(carried=()))


def test_types_that_cannot_be_written_are_given_up() -> None:
    inner = pa.struct([("d", pa.dictionary(pa.int8(), pa.string())), ("e", pa.struct([]))])
    schema = pa.schema([("top", pa.dictionary(pa.int8(), pa.string())), ("nested", pa.list_(inner))])
    plain = select_columns(schema, Columns())
    assert plain.field("top").type == pa.dictionary(pa.int8(), pa.string())
    assert plain.field("nested").type == pa.list_(
        pa.struct([("d", pa.string()), ("e", pa.map_(pa.string(), pa.string()))])
    )


def merged(*types: pa.DataType, declared: dict[str, pa.DataType] | None = None) -> pa.DataType:
    merger = SchemaMerger(columns=Columns(), declared=declared or {})
    for number, type in enumerate(types):
        merger.add(pa.schema([("a", type)]), f"file-{number}")
    found: pa.DataType = merger.schema.field("a").type
    return found


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.null(), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (
            pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int16(), pa.string()),
            pa.dictionary(pa.int32(), pa.string()),
        ),
        (pa.decimal128(10, 2), pa.decimal128(12, 3), pa.decimal128(12, 3)),
        (
            pa.struct([("x", pa.int64())]),
            pa.struct([("y", pa.int64())]),
            pa.struct([("x", pa.int64()), ("y", pa.int64())]),
        ),
    ],
)
def test_compatible_types_widen(one: pa.DataType, other: pa.DataType, both: pa.DataType) -> None:
    assert merged(one, other) == merged(other, one) == both or pa.types.is_struct(both)
    assert merged(one, other) == both


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.string()),
        (pa.binary(), pa.string()),
        (pa.bool_(), pa.int64()),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.list_(pa.int64()), pa.int64()),
    ],
)
def test_incompatible_types_are_refused_with_both_files(one: pa.DataType, other: pa.DataType) -> None:
    with pytest.raises(PlanError, match=r"column 'a' is .* in file-0 and .* in file-2"):
        merged(one, one, other)


def test_a_declared_type_replaces_those_of_the_files() -> None:
    assert merged(pa.int64(), pa.string(), declared={"a": pa.string()}) == pa.string()


def test_a_declared_type_that_a_file_cannot_become_is_refused() -> None:
    with pytest.raises(PlanError, match=r"list<item: int64> in file-0 and cannot become the date32"):
        merged(pa.list_(pa.int64()), declared={"a": pa.date32()})


def test_a_named_column_has_to_be_in_every_file() -> None:
    merger = SchemaMerger(columns=Columns(required=frozenset({"a"})), declared={})
    merger.add(pa.schema([("a", pa.int64())]), "one")
    with pytest.raises(PlanError, match="two has no column a; it has: b, c"):
        merger.add(pa.schema([("b", pa.int64()), ("c", pa.int64())]), "two")


def test_a_column_given_twice_is_refused() -> None:
    with pytest.raises(PlanError, match="one has two columns called 'a'"):
        SchemaMerger(columns=Columns(), declared={}).add(pa.schema([("a", pa.int64()), ("a", pa.int64())]), "one")
