"""Plain types hold the same values: pyarrow's own `to_pylist` is the judge, over generated types and values."""

import io
import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from pipelines.formats.plain_arrays import plain_array, plain_batch, plain_column
from pipelines.formats.schema import decoded, plain_type

_ARROW: Any = pa
_COMPUTE: Any = pc
TEXTS = st.one_of(st.none(), st.text(max_size=20))
CENTS = st.one_of(st.none(), st.decimals(-(10**6), 10**6, places=2))
NUMBERS = st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))


def dictionary(values: list[Any], index: pa.DataType) -> Any:
    encoded: Any = pa.array(values, pa.string()).dictionary_encode()
    return _ARROW.DictionaryArray.from_arrays(encoded.indices.cast(index), encoded.dictionary.cast(pa.string_view()))


def bools(values: list[Any]) -> Any:
    storage = pa.array([None if value is None else value % 2 for value in values], pa.int8())
    return pa.ExtensionArray.from_storage(pa.bool8(), storage)


LEAVES: tuple[tuple[st.SearchStrategy[Any], Callable[[list[Any]], Any]], ...] = (
    (TEXTS, lambda values: pa.array(values, pa.string_view())),
    (TEXTS, lambda values: dictionary(values, pa.uint32())),
    (TEXTS, lambda values: dictionary(values, pa.int8())),
    (TEXTS, lambda values: _COMPUTE.run_end_encode(pa.array(values, pa.string()))),
    (TEXTS, lambda values: pa.array(values, pa.large_string())),
    (st.one_of(st.none(), st.binary(max_size=20)), lambda values: pa.array(values, pa.binary_view())),
    (CENTS, lambda values: pa.array(values, _ARROW.decimal64(18, 2))),
    (CENTS, lambda values: pa.array(values, _ARROW.decimal32(9, 2))),
    (NUMBERS, bools),
    (NUMBERS, lambda values: _COMPUTE.run_end_encode(pa.array(values, pa.int64()))),
)


@st.composite
def arrays(draw: st.DrawFn, length: int, depth: int) -> Any:
    """An array of some nested type with `length` values, from anywhere in a longer one."""
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    total = before + length + after
    kind = (
        draw(st.sampled_from(("leaf", "list", "large_list", "list_view", "fixed", "struct", "map")))
        if depth
        else "leaf"
    )
    if kind == "leaf":
        values, make = draw(st.sampled_from(LEAVES))
        whole = make(draw(st.lists(values, min_size=total, max_size=total)))
    elif kind == "fixed":
        mask = pa.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)), pa.bool_())
        whole = _ARROW.FixedSizeListArray.from_arrays(draw(arrays(total * 2, depth - 1)), 2, mask=mask)
    elif kind == "struct":
        fields = [draw(arrays(total, depth - 1)) for _ in range(2)]
        mask = pa.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)), pa.bool_())
        whole = pa.StructArray.from_arrays(fields, names=["a", "b"], mask=mask)
    else:
        lengths = draw(st.lists(st.integers(0, 3), min_size=total, max_size=total))
        ends = [sum(lengths[:end]) for end in range(total + 1)]
        whole = _nested(draw, kind, ends, draw(arrays(ends[-1], depth - 1)))
    return whole.slice(before, length)


def _nested(draw: st.DrawFn, kind: str, ends: list[int], items: Any) -> Any:
    total = len(ends) - 1
    mask = pa.array(draw(st.lists(st.booleans(), min_size=total, max_size=total)), pa.bool_())
    if kind == "map":
        keys = pa.array([f"key {number}" for number in range(len(items))], pa.string_view())
        return _ARROW.MapArray.from_arrays(pa.array(ends, pa.int32()), keys, items, mask=mask)
    if kind == "list_view":
        sizes = pa.array([end - start for start, end in itertools.pairwise(ends)], pa.int32())
        return _ARROW.ListViewArray.from_arrays(pa.array(ends[:-1], pa.int32()), sizes, items, mask=mask)
    make, offset = (pa.LargeListArray, pa.int64()) if kind == "large_list" else (pa.ListArray, pa.int32())
    return _ARROW.__dict__[make.__name__].from_arrays(pa.array(ends, offset), items, mask=mask)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 4).flatmap(lambda length: arrays(length, 2)))
def test_plain_values_are_the_values(array: Any) -> None:
    plain = plain_array(array)
    plain.validate(full=True)
    assert plain.type == decoded(array.type)
    assert plain.to_pylist() == array.to_pylist()
    assert plain_column(array).to_pylist() == array.to_pylist()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3).flatmap(lambda length: arrays(length, 2)))
def test_plain_columns_can_be_taken_and_written(array: Any) -> None:
    batch = plain_batch(pa.RecordBatch.from_arrays([array], names=["a"]))
    table = pa.concat_tables([pa.Table.from_batches([batch])] * 2).take(pa.array([0, len(array)]))
    assert table.column(0).to_pylist() == array.slice(0, 1).to_pylist() * 2
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    assert pq.read_table(buffer).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("given_type", "plain"),
    [
        (pa.string_view(), pa.string()),
        (pa.list_view(pa.binary_view()), pa.list_(pa.binary())),
        (pa.large_list_view(pa.string_view()), pa.large_list(pa.string())),
        (pa.run_end_encoded(pa.int32(), pa.string_view()), pa.string()),
        (pa.dictionary(pa.uint64(), pa.string_view()), pa.dictionary(pa.int32(), pa.string())),
        (pa.dictionary(pa.int16(), pa.int64()), pa.int64()),
        (pa.decimal32(5, 2), pa.decimal128(5, 2)),
        (pa.json_(), pa.string()),
        (pa.bool8(), pa.bool_()),
        (pa.uuid(), pa.uuid()),
        (pa.list_(pa.uuid()), pa.list_(pa.uuid())),
        (pa.opaque(pa.binary(), "geometry", "db"), pa.binary()),
        (pa.fixed_shape_tensor(pa.int32(), [2, 2]), pa.list_(pa.int32(), 4)),
        (pa.struct([]), pa.map_(pa.string(), pa.string())),
    ],
)
def test_each_type_has_its_plain_one(given_type: pa.DataType, plain: pa.DataType) -> None:
    assert plain_type(given_type) == plain
    assert plain_type(plain) == plain
