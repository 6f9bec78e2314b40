"""A format of input that `tests/pipelines/input_formats/test_toy_format.py` brings: sections of `key = value` lines, one section a row.
A module that imports little, as those of the other formats do: every process that plans or reads imports it."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from pipelines.errors import PlanError, RowError
from pipelines.formats.conform import conform
from pipelines.formats.json_values import raw_value
from pipelines.formats.records import Records, iter_blocks
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
)
from pipelines.input_formats.text import TextUnits, opened_text, read_records
from pipelines.io.inputs import Storage
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import RowFailure, UnitRows
from pipelines.rows.unit import Unit


def sections(text: bytes, is_end: bool) -> Records:
    """Every line that starts with a bracket ends the section before it; the last section ends with the text."""
    starts = [0, *(place + 1 for place in range(len(text)) if text.startswith(b"\n[", place))]
    ends = np.array([*starts[1:], *([len(text)] if is_end and text else [])], dtype=np.int64)
    return Records(ends=ends, is_row=np.ones(len(ends), dtype=np.bool_))


def values_of(section: bytes) -> dict[str, str]:
    title, *lines = section.decode().strip().split("\n")
    pairs = [line.partition(" = ") for line in lines]
    if any(not equals for _, equals, _ in pairs):
        raise RowError("malformed_section", f"the section {title} has a line without ' = '")
    return {"section": title.strip("[]")} | {key: value for key, _, value in pairs}


def check(path: str, head: bytes) -> None:
    if not head.startswith(b"["):
        raise PlanError(f"{path} does not start with a section")


def columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    with opened_text(storage, path, check) as content:
        first = content.read(1 << 16).partition(b"\n[")[0]
    return ColumnsAtHead(names=tuple(values_of(first)), is_all=True)


def scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    units = TextUnits(wanted.unit_rows)
    with opened_text(wanted.storage, stretch.path, check) as content:
        for block in iter_blocks(content, sections, block_bytes=256):
            units.add(block)
    names = columns_at_head(wanted.storage, stretch.path).names
    return units.finish(schema=pa.schema([(name, pa.string()) for name in names]))


def read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    return read_records(wanted.storage, units, sections, partial(parse, wanted))


def parse(wanted: RowsWanted, unit: Unit, records: Sequence[bytes]) -> UnitRows:
    rows, failures = {}, []
    for position, record in enumerate(records):
        try:
            rows[position] = values_of(record)
        except RowError as error:
            failures.append(RowFailure.of(unit, position, error, raw_value(record)))
    names = wanted.schema.names
    given = pa.table({name: pa.array([row.get(name) for row in rows.values()], pa.string()) for name in names})
    return UnitRows.of(unit, ArrowRows(table=conform(given, wanted.schema).table), list(rows), failures)


SECTIONS = InputFormat(
    name="sections",
    title="sections",
    endings=(".sections",),
    is_compressible=True,
    columns_at_head=columns_at_head,
    scan=scan,
    read=read,
)
