"""Parquet as an input: units are rows of one row group. Decoding is `pipelines.formats.parquet`."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from pipelines.formats.hive import with_folders
from pipelines.formats.parquet import iter_row_ranges, read_footer, read_names
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
    pass_of_place,
)
from pipelines.input_formats.layout import why_unreadable
from pipelines.input_formats.tables import row_ranges, table_content
from pipelines.io.inputs import Storage
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.unit import Unit

_FOOTER_BYTES = 2 << 20  # reading a footer takes as long as reading this much text


def _columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    return ColumnsAtHead(names=read_names(storage, path), is_all=True)


def _scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    footer = read_footer(wanted.storage, stretch.path, wanted.columns)
    places = [
        (group, first, num_bytes * count // num_rows, count)
        for group, (num_rows, num_bytes) in enumerate(zip(footer.num_rows, footer.num_bytes, strict=True))
        for first, count in row_ranges(num_rows, num_bytes, wanted.unit_rows)
    ]
    groups, offsets, sizes, rows = np.array(places, dtype=np.int64).reshape(-1, 4).T
    schema = with_folders(footer.schema, stretch.path)
    return UnitsFound(row_groups=groups, offsets=offsets, num_bytes=sizes, num_rows=rows, schema=schema)


def _read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    first, ranges = units[0], [(unit.offset, unit.num_rows) for unit in units]
    tables = iter_row_ranges(wanted.storage, first.path, first.row_group, wanted.schema.names, ranges)
    for unit, table in zip(units, tables, strict=True):
        yield table_content(unit, table, wanted.schema)


PARQUET = InputFormat(
    name="parquet",
    title="Parquet",
    endings=(".parquet", ".pq"),
    has_frame=True,
    scan_bytes=_FOOTER_BYTES,
    columns_at_head=_columns_at_head,
    scan=_scan,
    read=_read,
    pass_of=pass_of_place,
    fault=partial(why_unreadable, kind="Parquet"),
)
