"""Small Parquet files of every type that polars and DuckDB write, each with one column `a`: values, a null, odd values."""

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tests.helpers.pipelines.written_files import BERLIN, DAY, LATE, NOON, SPAN, TEXTS, TIME, Written


def polars_series() -> dict[str, pl.Series]:
    """By name, a series of every type that polars writes to Parquet."""
    numbers = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Int128, pl.UInt128)
    series = {
        str(kind): pl.Series([1, None, 100], dtype=kind) for kind in (*numbers, pl.Float16, pl.Float32, pl.Float64)
    }
    typed: list[tuple[Any, list[Any]]] = [
        (pl.Boolean, [True, None, False]),
        (pl.String, TEXTS),
        (pl.Binary, [b"\x00\xff", None, b""]),
        (pl.Categorical, ["a", None, "b", "a"]),
        (pl.Enum(["a", "b"]), ["b", None, "a"]),
        (pl.Decimal(38, 10), [Decimal("1.5"), None]),
        (pl.Decimal(7, 2), [Decimal("1.50"), None]),
        (pl.Date, [DAY, None, LATE]),
        (pl.Time, [TIME, None]),
        *[(pl.Datetime(unit), [NOON.replace(microsecond=0), None]) for unit in ("ms", "us", "ns")],
        (pl.Datetime("us", "Europe/Berlin"), [BERLIN, None]),
        *[(pl.Duration(unit), [SPAN, None]) for unit in ("ms", "us", "ns")],
        (pl.Null, [None, None]),
        (pl.List(pl.String), [["a", None], None, []]),
        (pl.List(pl.Categorical), [["a", "a"], None, []]),
        (pl.List(pl.List(pl.Date)), [[[DAY], None], None]),
        (pl.Array(pl.Int16, 2), [[1, 2], None, [3, None]]),
        (pl.Struct({"x": pl.String, "y": pl.List(pl.Enum(["a"]))}), [{"x": "t", "y": ["a"]}, None]),
    ]
    return series | {str(kind): pl.Series(values, dtype=kind, strict=False) for kind, values in typed}


_POLARS_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"compression": "snappy", "row_group_size": 1},
    {"compression": "gzip"},
)


def polars_files() -> Iterator[Written]:
    for number, (name, series) in enumerate(polars_series().items()):
        options = _POLARS_OPTIONS[number % len(_POLARS_OPTIONS)]
        yield Written("polars", name, partial(_write_polars, series, options))


def _write_polars(series: pl.Series, options: dict[str, Any], path: Path) -> None:
    series.to_frame("a").write_parquet(path, **options)


DUCKDB_VALUES = (
    *(
        "(-128)::TINYINT",
        "255::UTINYINT",
        "(-32768)::SMALLINT",
        "65535::USMALLINT",
        "1::INTEGER",
        "4294967295::UINTEGER",
    ),
    *(
        "(-9223372036854775808)::BIGINT",
        "18446744073709551615::UBIGINT",
        "17::HUGEINT",
        "17::UHUGEINT",
        "12345678901234567890::BIGNUM",
    ),
    *(
        "true",
        "0.1::FLOAT",
        "0.1::DOUBLE",
        "1.25::DECIMAL(4,2)",
        "1.25::DECIMAL(9,2)",
        "1.25::DECIMAL(18,2)",
        "1.25::DECIMAL(38,2)",
    ),
    *("'text ü'::VARCHAR", "'\\x00\\xFF'::BLOB", "'101'::BIT", "'x'::ENUM('x','y')", "'{\"a\": 1}'::JSON"),
    *("DATE '9999-12-31'", "TIME '01:02:03.000004'", "TIMETZ '01:02:03+02'", "TIME_NS '01:02:03.000004'"),
    *("TIMESTAMP '9999-12-31 23:59:59'", "TIMESTAMP_S '2024-02-29 01:02:03'", "TIMESTAMP_MS '9999-12-31 01:02:03'"),
    *(
        "TIMESTAMP_NS '2024-02-29 01:02:03.123456789'",
        "TIMESTAMPTZ '2024-02-29 01:02:03+02'",
        "INTERVAL '1 month 2 days'",
    ),
    *("uuid '00000000-0000-0000-0000-000000000005'", "[uuid '00000000-0000-0000-0000-000000000005', NULL]"),
    *(
        "[1, NULL]",
        "[[1.5], NULL]",
        "{'x': 1, 'y': ['a']}",
        "MAP{'k': {'v': 1}}",
        "union_value(k := 1)",
        "'x'::VARIANT",
        "NULL",
    ),
    *("DATE 'infinity'", "TIMESTAMP 'infinity'", "TIMESTAMPTZ '-infinity'", "[1, 2]::INTEGER[2]"),
)
_DUCKDB_OPTIONS = (
    "",
    ", compression zstd",
    ", compression lz4_raw, parquet_version v2",
    ", row_group_size 2048, compression uncompressed",
)


def duckdb_files() -> Iterator[Written]:
    for number, value in enumerate(DUCKDB_VALUES):
        options = _DUCKDB_OPTIONS[number % len(_DUCKDB_OPTIONS)]
        yield Written("duckdb", value, partial(_copy, value, options))


def _copy(value: str, options: str, path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {value} AS a UNION ALL SELECT NULL) TO '{path}' (FORMAT parquet{options})")
