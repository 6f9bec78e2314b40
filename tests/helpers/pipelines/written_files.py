"""Small Parquet files of every type that pyarrow writes, each with one column `a`: values, a null, odd values.

Those of other writers are in `tests/clients`.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_ARROW: Any = pa
DAY, LATE, EARLY = dt.date(2024, 2, 29), dt.date(9999, 12, 31), dt.date(1, 1, 1)
NOON = dt.datetime.fromisoformat("2024-02-29T12:34:56.789012")
END = dt.datetime.fromisoformat("9999-12-31T23:59:59")
BERLIN = dt.datetime.fromisoformat("2024-02-29T12:34:56+00:00")
TIME = dt.time(12, 34, 56, 789012)
SPAN = dt.timedelta(days=-3, seconds=7)
TEXTS = ["a", None, "longer than twelve bytes, ü 🙂", ""]
UUIDS = [uuid.UUID(int=5), None, uuid.UUID(int=2**128 - 1)]


@dataclass(frozen=True, slots=True)
class Written:
    """A file: who writes it, of which type, and how."""

    writer: str
    type: str
    write: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.writer}-{self.type}"


def arrow_arrays() -> dict[str, Any]:
    """By name, an array of every type that pyarrow writes to Parquet."""
    types: list[tuple[pa.DataType, list[Any]]] = [
        (pa.bool_(), [True, None, False]),
        *[
            (_ARROW.type_for_alias(f"int{bits}"), [-(2 ** (bits - 1)), None, 2 ** (bits - 1) - 1])
            for bits in (8, 16, 32, 64)
        ],
        *[(_ARROW.type_for_alias(f"uint{bits}"), [0, None, 2**bits - 1]) for bits in (8, 16, 32, 64)],
        (pa.float16(), [1.5, None, -65504.0]),
        (pa.float32(), [0.1, None, 3.4e38]),
        (pa.float64(), [0.1, None, 1e308, 2.0**53 + 2]),
        *[(kind(), TEXTS) for kind in (pa.string, pa.large_string, pa.string_view)],
        *[(kind(), [b"\x00\xff", None, b""]) for kind in (pa.binary, pa.large_binary, pa.binary_view)],
        (pa.binary(3), [b"abc", None, b"\x00\x01\x02"]),
        (_ARROW.decimal32(5, 2), [Decimal("1.20"), None, Decimal("-999.99")]),
        (_ARROW.decimal64(15, 3), [Decimal("1.200"), None, Decimal("-999999999999.999")]),
        (pa.decimal128(38, 10), [Decimal("0.1000000000"), None, Decimal("-9" * 1 + "9" * 27 + ".9999999999")]),
        (pa.decimal256(76, 0), [Decimal("1" * 76), None, Decimal(-1)]),
        (pa.date32(), [DAY, None, LATE, EARLY]),
        (pa.date64(), [DAY, None, LATE]),
        (pa.time32("s"), [dt.time(1, 2, 3), None]),
        (pa.time32("ms"), [dt.time(1, 2, 3, 4000), None]),
        (pa.time64("us"), [TIME, None]),
        (pa.time64("ns"), [TIME, None]),
        *[(_ARROW.timestamp(unit), [NOON.replace(microsecond=0), None, END]) for unit in ("s", "ms", "us")],
        (pa.timestamp("ns"), [1_709_210_096_789_012_345, None, -1]),
        *[(_ARROW.timestamp(unit, "Europe/Berlin"), [BERLIN, None]) for unit in ("s", "ms", "us", "ns")],
        (pa.timestamp("us", "+05:30"), [BERLIN, None]),
        *[(_ARROW.duration(unit), [SPAN, None]) for unit in ("s", "ms", "us", "ns")],
        (pa.null(), [None, None]),
        (pa.list_(pa.int64()), [[1, None], None, []]),
        (pa.large_list(pa.string_view()), [["a", None], None, []]),
        (pa.list_view(pa.float32()), [[0.5, None], None, []]),
        (pa.large_list_view(pa.string()), [["a", None], None, []]),
        (pa.list_(pa.int8(), 2), [[1, 2], None, [3, None]]),
        (
            pa.struct([("x", pa.int8()), ("y", pa.list_(pa.string_view()))]),
            [{"x": 1, "y": ["a"]}, None, {"x": None, "y": None}],
        ),
        (pa.map_(pa.string(), pa.list_(pa.decimal128(5, 1))), [[("k", [Decimal("1.5")])], None, []]),
        (pa.list_(pa.struct([("t", pa.timestamp("us", "UTC"))])), [[{"t": BERLIN}], None]),
    ]
    arrays: dict[str, Any] = {str(type): pa.array(values, type) for type, values in types}
    texts: Any = pa.array(TEXTS).dictionary_encode()
    arrays |= {
        f"dictionary of {index}": pa.DictionaryArray.from_arrays(texts.indices.cast(index), texts.dictionary)
        for index in (pa.int8(), pa.uint8(), pa.int64(), pa.uint32())
    }
    arrays["dictionary of numbers"] = pa.array([7, None, 7]).dictionary_encode()
    arrays["list of dictionary"] = _ARROW.ListArray.from_arrays([0, 2, 2, 4], texts)
    arrays["uuid"] = pa.array([None if one is None else one.bytes for one in UUIDS], pa.binary(16)).cast(pa.uuid())
    arrays["list of uuid"] = pa.array([[bytes(16), None], None], pa.list_(pa.binary(16))).cast(pa.list_(pa.uuid()))
    for kind, storage in (
        (pa.json_(), pa.array(['{"a": [1]}', None])),
        (pa.bool8(), pa.array([1, None, 0], pa.int8())),
        (pa.opaque(pa.binary(), "geometry", "a database"), pa.array([b"\x01", None])),
        (pa.fixed_shape_tensor(pa.int32(), [2, 2]), pa.array([[1, 2, 3, 4], None], pa.list_(pa.int32(), 4))),
    ):
        arrays[str(kind)] = pa.ExtensionArray.from_storage(kind, storage)
    return arrays


_ARROW_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"compression": "zstd", "row_group_size": 2, "data_page_version": "2.0"},
    {"compression": "none", "use_dictionary": False, "store_schema": False},
    {"compression": "brotli", "write_statistics": False, "version": "1.0", "use_byte_stream_split": False},
)


def arrow_files() -> Iterator[Written]:
    for number, (name, array) in enumerate(arrow_arrays().items()):
        options = _ARROW_OPTIONS[number % len(_ARROW_OPTIONS)]
        yield Written("pyarrow", name, partial(_write_arrow, array, options))
    moments = pa.table({"a": pa.array([NOON, None, END, dt.datetime.fromisoformat("1500-01-01")], pa.timestamp("us"))})
    yield Written("pyarrow", "INT96", lambda path: pq.write_table(moments, path, use_deprecated_int96_timestamps=True))


def _write_arrow(array: Any, options: dict[str, Any], path: Path) -> None:
    pq.write_table(pa.table({"a": array}), path, **options)
