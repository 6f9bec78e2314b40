"""CSV as an input: units are records, and the header of the file gives their columns. Parsing is `pipelines.formats.csv_text`."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import PlanError, RowError, SourceChangedError
from pipelines.formats.csv_text import parse_header, read_csv, read_first_record
from pipelines.formats.hive import add_folders, folder_values, with_folders
from pipelines.formats.json_values import json_rows, raw_value
from pipelines.formats.records import Block, Records, csv_records, iter_blocks
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
)
from pipelines.input_formats.layout import check_text
from pipelines.input_formats.text import TextUnits, opened_text, read_records
from pipelines.io.inputs import Storage, reading
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import Unit


def _check(path: str, head: bytes) -> None:
    check_text(path, head, "csv", has_records=lambda text: text.rstrip(b"\r").count(b"\r") > 0)


def _columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    with opened_text(storage, path, _check) as content:
        names = parse_header(read_first_record(content), path)
    return ColumnsAtHead(names=names, is_all=bool(names))  # an empty file says nothing


def _scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    units, schema = TextUnits(wanted.unit_rows), None
    with opened_text(wanted.storage, stretch.path, _check) as content:
        for block in iter_blocks(content, csv_records):
            if schema is None:
                schema, block = _without_header(block, stretch.path)
            units.add(block)
            if units.has_enough(wanted):
                break
    return units.finish(schema=schema and with_folders(schema, stretch.path))


def _without_header(block: Block, path: str) -> tuple[pa.Schema | None, Block]:
    """The header's columns, all text, and what comes after it; None while all is blank."""
    header = int(np.argmax(block.records.is_row)) if block.records.num_rows else None
    if header is None:
        return None, block
    end = int(block.records.ends[header])
    start = int(block.records.ends[header - 1]) if header else 0
    names = parse_header(block.text[start:end], path)
    rest = Records(ends=block.records.ends[header + 1 :] - end, is_row=block.records.is_row[header + 1 :])
    schema = pa.schema([(name, pa.string()) for name in names])
    return schema, Block(block.offset + end, block.text[end:], rest)


def _read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    return read_records(wanted.storage, units, csv_records, partial(_parse, wanted))


def _parse(wanted: RowsWanted, unit: Unit, records: Sequence[bytes]) -> UnitRows:
    header, given = _header(wanted, unit), folder_values(unit.path)
    own = pa.schema([column for column in wanted.schema if column.name in header or column.name not in given])
    read = read_csv(b"".join(records), records, header, own)
    failures = [
        RowFailure.of(unit, row, error, _as_given(records[row], header, error))
        for row, error in sorted(read.failures.items())
    ]
    table = add_folders(read.in_order(), unit.path, wanted.schema).select(wanted.schema.names)
    return UnitRows.of(unit, ArrowRows(table=table.combine_chunks()), read.positions, failures)


def _header(wanted: RowsWanted, unit: Unit) -> tuple[str, ...]:
    key = unit.path, unit.source_tag
    if key not in wanted.kept:
        content = wanted.storage.content(unit.path)
        try:
            with reading(unit.path):
                wanted.kept[key] = parse_header(read_first_record(content), unit.path)
        except PlanError as error:
            raise SourceChangedError(f"the header of {unit.path} is not the one that was planned: {error}") from error
        finally:
            content.close()
    header: tuple[str, ...] = wanted.kept[key]
    return header


def _as_given(record: bytes, header: tuple[str, ...], error: RowError) -> dict[str, Any]:
    """The record's cells as text where it has the right ones, else the raw record."""
    if error.kind != "schema_mismatch":
        return raw_value(record.rstrip(b"\r\n"))
    schema = pa.schema([(name, pa.string()) for name in header])
    return json_rows(read_csv(record, [record], header, schema).in_order())[0]


CSV = InputFormat(
    name="csv",
    title="CSV",
    endings=(".csv",),
    is_compressible=True,
    columns_at_head=_columns_at_head,
    scan=_scan,
    read=_read,
)
