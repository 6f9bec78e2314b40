"""Arrays in plain types: what Arrow, and the formats we write, can take, cast and hold without exception.

Polars, Spark, DuckDB, Delta and pandas write types of which Arrow has several forms: views, run-end encoded and nested dictionary
values, narrow decimals, extension types. `pipelines.formats.schema.plain_type` says which plain type each becomes; here the
values follow. No value changes. Nested arrays are taken apart and put together again, because Arrow's own casts of them miss some kinds.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.formats.schema import decoded, plain_type

_ARROW: Any = pa  # its stubs lack what is made from parts here
_COMPUTE: Any = pc

Int64Array = npt.NDArray[np.int64]


def plain_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with every column in its plain type."""
    columns: list[Any] = [plain_column(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=plain_schema(batch.schema))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata, every column in its plain type."""
    return pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def plain_column(array: Any) -> Any:
    """A column's values in `plain_type` of its type; a dictionary of texts stays one."""
    wanted = plain_type(array.type)
    if array.type == wanted:
        return array
    if isinstance(wanted, pa.DictionaryType):
        values = plain_array(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices.cast(wanted.index_type), values)
    return plain_array(array)


def plain_array(array: Any) -> Any:
    """The values in `decoded` of the array's type."""
    wanted = decoded(array.type)
    if array.type == wanted:
        return array
    match array.type:
        case pa.DictionaryType():
            plain = plain_array(array.dictionary).take(array.indices)
        case pa.RunEndEncodedType():
            plain = plain_array(_COMPUTE.run_end_decode(array))
        case pa.StructType():
            plain = _struct(array, wanted)
        case pa.MapType():
            plain = _map(array, wanted)
        case pa.FixedSizeListType():
            plain = _fixed_size_list(array, wanted)
        case pa.ListType() | pa.LargeListType() | pa.ListViewType() | pa.LargeListViewType():
            plain = _list(array, wanted)
        case pa.Bool8Type():
            plain = array.storage.cast(wanted)
        case pa.BaseExtensionType():
            plain = plain_array(array.storage)
        case _:
            plain = array.cast(wanted)
    return plain


def _struct(array: Any, wanted: Any) -> Any:
    if isinstance(wanted, pa.MapType):  # a struct without fields
        return pa.array([[] if is_valid else None for is_valid in array.is_valid().to_pylist()], wanted)
    fields = [plain_array(values) for values in array.flatten()]
    return pa.StructArray.from_arrays(fields, fields=list(wanted), mask=array.is_null())


def _fixed_size_list(array: Any, wanted: pa.DataType) -> Any:
    first, size = array.offset * array.type.list_size, len(array) * array.type.list_size
    values = plain_array(array.values.slice(first, size))
    return _ARROW.FixedSizeListArray.from_arrays(values, type=wanted, mask=array.is_null())


def _list(array: Any, wanted: pa.DataType) -> Any:
    is_large = isinstance(wanted, pa.LargeListType)
    starts = array.offsets.to_numpy()[: len(array)].astype(np.int64)
    lengths = pc.list_value_length(array).fill_null(0).to_numpy().astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    items = _items(plain_array(array.values), starts, lengths, offsets)
    places = pa.array(offsets, pa.int64() if is_large else pa.int32())
    kind = _ARROW.LargeListArray if is_large else _ARROW.ListArray
    return kind.from_arrays(places, items, type=wanted, mask=array.is_null())


def _items(values: Any, starts: Int64Array, lengths: Int64Array, offsets: Int64Array) -> Any:
    """The items of lists [N], one list after the other, out of the values that they point into."""
    is_in_turn = not len(starts) or bool((starts - starts[0] == offsets[:-1]).all())
    if is_in_turn:
        return values.slice(int(starts[0]) if len(starts) else 0, int(offsets[-1]))
    return values.take(pa.array(np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])))


def _map(array: Any, wanted: Any) -> Any:
    offsets = array.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    keys, items = (plain_array(values.slice(first, last - first)) for values in (array.keys, array.items))
    starts = pa.array(offsets - first, pa.int32())
    return _ARROW.MapArray.from_arrays(starts, keys, items, type=wanted, mask=array.is_null())
