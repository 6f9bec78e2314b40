"""A unit of CSV, parsed into the run's schema, and the header of a CSV file.

Comma, double quotes, quotes doubled inside quotes, a header line. Every column is text unless `input.schema` declares a type:
guessing would turn "007" into 7. An empty cell is null, an empty cell in quotes is the empty text. A record with more or fewer
cells than the header, or with text outside a cell's quotes, is malformed.
"""

import csv
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from pipelines.errors import PlanError, RowError
from pipelines.formats.json_line import is_utf8
from pipelines.formats.records import BOM, MAX_CSV_RECORD_BYTES, csv_records
from pipelines.formats.rows_read import RowsRead
from pipelines.io.inputs import Content

_HEADER_BYTES = 1 << 16

_CELL = rb'(?:"(?:[^"]++|"")*+"|[^",\r\n][^,\r\n]*+|)'
_CELLS = re.compile(rb"(?:\A|,)%s" % _CELL)
_WELL_FORMED = re.compile(rb"(?:%s(?:,%s)*+\r?\n)*+" % (_CELL, _CELL))


def parse_header(record: bytes, path: str) -> tuple[str, ...]:
    """The column names in a CSV file's first record.

    Raises:
        PlanError: it cannot be read, or gives a name twice.
    """
    try:
        names = next(csv.reader([record.decode()], strict=True))
    except (UnicodeDecodeError, csv.Error, StopIteration) as error:
        raise PlanError(f"the header of {path} cannot be read: {error}; it must be CSV in UTF-8") from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"the header of {path} gives column {twice[0]!r} twice; rename one of them")
    return tuple(names)


def read_first_record(content: Content) -> bytes:
    """The first record of a CSV text that is not blank, read from its start; empty if all are
    blank."""
    text = b""
    while more := content.read(_HEADER_BYTES):
        text = (text + more).removeprefix(BOM).lstrip(b"\r\n")
        record = _first_record(text)
        if len(record) < len(text) or len(text) > MAX_CSV_RECORD_BYTES:
            return record
    return _first_record(text)


def _first_record(text: bytes) -> bytes:
    start, end = next(csv_records(text, True).bounds(), (0, 0))
    return text[start:end]


def read_csv(text: bytes, records: Sequence[bytes], header: tuple[str, ...], schema: pa.Schema) -> RowsRead:
    """Parses `records`, which are the records of `text` that are not blank, ends included."""
    rows = RowsRead.empty(schema)
    reader = _CellReader(header, [name for name in schema.names if name in header])
    table = reader.parse(text, len(records))
    if table is not None:
        rows.add(table, range(len(records)))
        return rows
    flaws = {position: _flaw(record, header) for position, record in enumerate(records)}
    rows.failures.update((position, flaw) for position, flaw in flaws.items() if flaw is not None)
    good = [position for position, flaw in flaws.items() if flaw is None]
    refused = rows.add_most(good, lambda some: reader.parse(b"".join(records[at] for at in some), len(some)))
    rows.failures.update(
        (position, RowError("malformed_csv", "the record is refused by the parser")) for position in refused
    )
    return rows


class _CellReader:
    """Reads the wanted columns of well-formed CSV as text."""

    def __init__(self, header: tuple[str, ...], wanted: list[str]) -> None:
        self._read = pc.ReadOptions(column_names=list(header), use_threads=False)
        self._convert = pc.ConvertOptions(
            check_utf8=False,  # checked for the whole text
            column_types=dict.fromkeys(wanted, pa.string()),
            include_columns=wanted,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )

    def parse(self, text: bytes, num_records: int) -> pa.Table | None:
        """A table with as many rows as there are records; None if any of them is malformed."""
        if not num_records or not _is_well_formed(text):
            return None
        self._read.block_size = len(text) + 1
        source: Any = pa.BufferReader(text)
        options = pc.ParseOptions(newlines_in_values=True)
        try:
            table = pc.read_csv(source, read_options=self._read, parse_options=options, convert_options=self._convert)
        except pa.ArrowException:
            return None
        return table if table.num_rows == num_records else None


def _is_well_formed(text: bytes) -> bool:
    """Whether all of `text` is UTF-8 and pyarrow finds the same records and cells in it as RFC 4180 does."""
    if not is_utf8(text):
        return False
    if b'"' not in text:
        return b"\r" not in text or text.count(b"\r") == text.count(b"\r\n")
    return _WELL_FORMED.fullmatch(text if text.endswith(b"\n") else text + b"\n") is not None


def _flaw(record: bytes, header: tuple[str, ...]) -> RowError | None:
    """What is wrong with a record, None if nothing is."""
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return RowError("invalid_utf8", f"byte {record[error.start]:#04x} at place {error.start} is not UTF-8")
    if not _is_well_formed(record):
        return RowError(
            "malformed_csv", "the record has text outside a cell's quotes, or an end of line inside a bare cell"
        )
    num_cells = len(_CELLS.findall(record.rstrip(b"\r\n")))
    if num_cells != len(header):
        return RowError("malformed_csv", f"the record has {num_cells} cells, and the header {len(header)} columns")
    return None
