"""Merging types: every value comes back as it was, or its row is told, or the two files are refused by name."""

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from pipelines.formats.conform import conform
from pipelines.formats.type_merge import merge_types

_ARROW: Any = pa
INTEGERS: dict[pa.DataType, tuple[int, int]] = {
    **{_ARROW.type_for_alias(f"int{bits}"): (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{_ARROW.type_for_alias(f"uint{bits}"): (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
FLOATS: dict[pa.DataType, int] = {pa.float16(): 16, pa.float32(): 32, pa.float64(): 64}
YEARS = st.datetimes(max_value=dt.datetime.fromisoformat("9999-12-30"))


@st.composite
def decimals(draw: st.DrawFn) -> tuple[pa.DataType, list[Any]]:
    precision = draw(st.integers(1, 76))
    scale = draw(st.integers(0, precision))
    digits = draw(st.lists(st.integers(-(10**precision) + 1, 10**precision - 1), max_size=3))
    kind = pa.decimal128 if precision <= 38 else pa.decimal256
    return kind(precision, scale), [Decimal(f"{number}E-{scale}") for number in digits]


@st.composite
def timestamps(draw: st.DrawFn) -> tuple[pa.DataType, list[Any]]:
    unit, zone = draw(st.sampled_from(("s", "ms", "us", "ns"))), draw(st.sampled_from((None, "UTC", "Asia/Tokyo")))
    years = st.datetimes(*map(dt.datetime.fromisoformat, ("1678-01-01", "2262-01-01"))) if unit == "ns" else YEARS
    moments = [moment.replace(microsecond=0) for moment in draw(st.lists(years, max_size=3))]
    return _ARROW.timestamp(unit, zone), moments


def leaves() -> st.SearchStrategy[tuple[pa.DataType, list[Any]]]:
    return st.one_of(
        *[
            st.tuples(st.just(kind), st.lists(st.integers(low, high), max_size=3))
            for kind, (low, high) in INTEGERS.items()
        ],
        *[
            st.tuples(st.just(kind), st.lists(st.floats(width=bits, allow_nan=False), max_size=3))  # type: ignore[arg-type]
            for kind, bits in FLOATS.items()
        ],
        decimals(),
        timestamps(),
        st.tuples(st.sampled_from((pa.string(), pa.large_string())), st.lists(st.text(max_size=5), max_size=3)),
        st.tuples(st.sampled_from((pa.binary(), pa.large_binary())), st.lists(st.binary(max_size=5), max_size=3)),
        st.tuples(st.just(pa.binary(2)), st.lists(st.binary(min_size=2, max_size=2), max_size=3)),
        st.tuples(st.sampled_from((pa.time32("s"), pa.time64("ns"))), st.just([dt.time(1, 2, 3)])),
        st.tuples(st.sampled_from((pa.duration("s"), pa.duration("us"))), st.just([dt.timedelta(9)])),
        st.tuples(st.just(pa.bool_()), st.lists(st.booleans(), max_size=3)),
        st.tuples(st.just(pa.date32()), st.just([dt.date(2024, 2, 29)])),
        st.tuples(st.just(pa.null()), st.just([None])),
        st.tuples(st.just(pa.dictionary(pa.int8(), pa.string())), st.lists(st.sampled_from("ab"), max_size=3)),
    )


def columns() -> st.SearchStrategy[tuple[pa.DataType, list[Any]]]:
    def nested(inner: st.SearchStrategy[tuple[pa.DataType, list[Any]]]) -> st.SearchStrategy[Any]:
        names = st.sampled_from("ab")
        return st.one_of(
            inner.map(lambda column: (pa.list_(column[0]), [column[1], None])),
            inner.map(lambda column: (pa.large_list(column[0]), [column[1]])),
            st.tuples(names, inner).map(
                lambda given: (
                    pa.struct([(given[0], given[1][0])]),
                    [{given[0]: value} for value in given[1][1]],
                )
            ),
            inner.map(lambda column: (pa.map_(pa.string(), column[0]), [[("k", value)] for value in column[1]])),
        )

    return st.recursive(leaves(), nested, max_leaves=2)


def plain(value: Any) -> Any:
    """Without the keys that only another file has; maps and lists of pairs are the same."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return (
        value.astimezone(dt.UTC) if isinstance(value, dt.datetime) and value.tzinfo and 2 < value.year < 9999 else value
    )


@settings(max_examples=1500, deadline=None)
@given(columns(), columns())
def test_merged_values_are_the_values_or_their_row_is_told(
    one: tuple[pa.DataType, list[Any]], other: tuple[pa.DataType, list[Any]]
) -> None:
    both = merge_types(one[0], other[0])
    mirrored = merge_types(other[0], one[0])
    assert (both is None) == (mirrored is None)
    if both is None:
        return
    for type, values in (one, other):
        array: Any = pa.array(values, type)
        fitted = conform(pa.table({"a": array}), pa.schema([("a", both)]))
        given_values = array.to_pylist()
        assert plain(fitted.table.column("a").to_pylist()) == plain([given_values[row] for row in fitted.positions])
        assert all("column 'a'" in error.message for error in fitted.misfits.values())


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.decimal128(10, 2), pa.int64(), pa.decimal128(22, 2)),
        (pa.decimal128(10, 2), pa.int8(), pa.decimal128(10, 2)),
        (pa.decimal128(38, 10), pa.decimal128(38, 0), pa.decimal256(48, 10)),
        (pa.decimal256(76, 0), pa.decimal256(76, 1), None),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.uint64(), pa.int64(), pa.decimal128(20, 0)),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.timestamp("ms", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.dictionary(pa.int8(), pa.string()), pa.large_string(), pa.large_string()),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int64(), 3), pa.list_(pa.int64())),
        (pa.uuid(), pa.string(), None),
        (pa.bool_(), pa.int8(), None),
    ],
)
def test_two_types_have_one_exact_type_or_none(one: pa.DataType, other: pa.DataType, both: pa.DataType | None) -> None:
    assert merge_types(one, other) == merge_types(other, one) == both


def test_an_integer_that_no_float_holds_is_told_and_not_rounded() -> None:
    both = merge_types(pa.int64(), pa.float64())
    assert both is not None
    fitted = conform(pa.table({"a": [2**53, 2**53 + 1]}), pa.schema([("a", both)]))
    assert fitted.table.column("a").to_pylist() == [math.ldexp(1, 53)]
    assert {row: error.kind for row, error in fitted.misfits.items()} == {1: "schema_mismatch"}
