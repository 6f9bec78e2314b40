"""Reading units: rows that fit the run's schema, and the rows that cannot be read apart from them.

Usage:

    reader = UnitReader(schema=record.schema, declared=frozenset(job.input.schema or ()), storage=Storage.of(job.input))
    reader.read_unit(unit) -> UnitRows                                  # raises SourceError
    reader.read_units(units) -> Iterator[UnitRows | UnreadableUnit]     # retries, and goes on where it can
    group_units(units) -> Iterator[tuple[Unit, ...]]                    # which units one read task should be given together

A compressed file can only be read from its start, and a Parquet row group from its own: `read_units` reads neighbouring units of one
such source in a single pass, however many were left out in between, and `group_units` keeps them together. All others stand alone.

Every unit's file is compared with the plan before it is opened and again after the unit is read, so rows of a file that was rewritten
under the job never get through. A file that was only touched is known by the hash of its content.

Failures of rows: `malformed_json`, `not_an_object`, `invalid_utf8`, `malformed_csv` and `schema_mismatch`. What is no record is kept
as `{"_raw_base64": ...}`, and so is a Parquet value that is not valid UTF-8, in its place.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import PlanError, RowError, SourceChangedError, SourceError
from pipelines.formats.conform import conform
from pipelines.formats.csv_text import parse_header, read_csv, read_first_record
from pipelines.formats.hive import add_folders, folder_values, is_from_folders
from pipelines.formats.json_line import parse_object
from pipelines.formats.json_values import JsonText, json_rows, raw_value
from pipelines.formats.parquet import iter_row_ranges
from pipelines.formats.records import csv_records, jsonl_records
from pipelines.io.inputs import Content, FileStat, Storage, reading, with_retries
from pipelines.rows.arrow_rows import ArrowRows
from pipelines.rows.folder_rows import in_folders
from pipelines.rows.jsonl import read_jsonl
from pipelines.rows.read_guard import read_guarded
from pipelines.rows.row_guard import unit_fault
from pipelines.rows.rows import JsonRow, RowFailure, Rows, UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.digest import digest_of

_SKIP_BYTES = 4 << 20


def group_units(units: Iterable[Unit]) -> Iterator[tuple[Unit, ...]]:
    """Splits units, in order, into those that are read in one pass: of one compressed file or one row group; others alone."""
    for _, group in groupby(units, key=_pass_key):
        yield tuple(group)


def _pass_key(unit: Unit) -> tuple[str, int]:
    if unit.format == "parquet":
        return unit.path, unit.row_group
    return (unit.path, unit.index) if unit.is_cuttable else (unit.path, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitReader:
    """Reads units into tables of `schema`. Picklable. `declared` are the columns whose types come from `input.schema`."""

    schema: pa.Schema
    declared: frozenset[str] = frozenset()
    storage: Storage = field(default_factory=Storage)
    _headers: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)
    _digests: dict[tuple[str, str], str] = field(default_factory=dict, init=False, repr=False)

    def read_unit(self, unit: Unit) -> UnitRows:
        """Reads one unit, once.

        Raises:
            SourceError: it cannot be read; SourceChangedError: its file has changed since it was planned.
        """
        return next(self._pass((unit,)))

    def read_units(
        self, units: Iterable[Unit], *, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[UnitRows | UnreadableUnit]:
        """Reads units in order. One that stays unreadable after retries takes those after it in the same pass along."""
        for group in group_units(units):
            yield from self._read_group(group, sleep)

    def _read_group(
        self, group: tuple[Unit, ...], sleep: Callable[[float], None]
    ) -> Iterator[UnitRows | UnreadableUnit]:
        one_pass = _Pass(self._pass, group)
        for position in range(len(group)):
            try:
                yield with_retries(one_pass.next, sleep=sleep)
            except SourceError as error:
                yield from (UnreadableUnit(unit=unit, message=str(error)) for unit in group[position:])
                return
            except Exception as error:  # noqa: BLE001 - the unit boundary
                one_pass.skip()
                yield UnreadableUnit(unit=group[position], message=unit_fault(error), is_fault=True)

    def _pass(self, group: Sequence[Unit]) -> Iterator[UnitRows]:
        """Reads units that can be read in one pass."""
        first = group[0]
        self._check_source(first)
        if first.format == "parquet":
            read = self._read_parquet(group)
        elif first.is_cuttable:
            read = self._read_cut(group)
        else:
            read = self._read_stream(group)
        for rows in read:
            self._check_source(first)
            yield rows

    def _check_source(self, unit: Unit) -> None:
        found = self.storage.stat(unit.path)
        planned = FileStat(size=unit.source_size, tag=unit.source_tag)
        if found != planned and not self._is_only_touched(unit, found):
            raise SourceChangedError(
                f"{unit.path} has changed since it was planned: it was {planned.size} bytes (version {planned.tag}) and is "
                f"{found.size} bytes (version {found.tag}); put the planned file back, or start a run in a new output folder"
            )

    def _is_only_touched(self, unit: Unit, found: FileStat) -> bool:
        """Whether the file holds what was planned, though its modification time is another."""
        if not unit.source_digest or found.size != unit.source_size:
            return False
        key = unit.path, found.tag
        if key not in self._digests:
            self._digests[key] = digest_of(self.storage, unit.path, found.size)
        return self._digests[key] == unit.source_digest

    def _read_parquet(self, group: Sequence[Unit]) -> Iterator[UnitRows]:
        first = group[0]
        ranges = [(unit.offset, unit.num_rows) for unit in group]
        tables = iter_row_ranges(self.storage, first.path, first.row_group, self.schema.names, ranges)
        for unit, table in zip(group, tables, strict=True):
            yield self._fit_guarded(unit, table)

    def _fit_guarded(self, unit: Unit, table: pa.Table) -> UnitRows:
        return read_guarded(
            unit,
            lambda rows: self._fit(unit, _rows_of(table, rows)),
            lambda row: json_rows(_rows_of(table, [row]))[0],
        )

    def _fit(self, unit: Unit, table: pa.Table) -> UnitRows:
        fitted = conform(add_folders(table, unit.path, self.schema), self.schema)
        misfits = sorted(fitted.misfits)
        inputs = dict(zip(misfits, json_rows(_rows_of(table, misfits)), strict=True))
        failures = [_failure(unit, row, fitted.misfits[row], inputs[row]) for row in inputs]
        return _unit_rows(unit, ArrowRows(table=fitted.table.combine_chunks()), fitted.positions, failures)

    def _read_cut(self, group: Sequence[Unit]) -> Iterator[UnitRows]:
        for unit in group:
            yield self._parse(unit, self.storage.read(unit.path, unit.offset, unit.num_bytes))

    def _read_stream(self, group: Sequence[Unit]) -> Iterator[UnitRows]:
        content = self.storage.content(group[0].path)
        try:
            position = 0
            for unit in group:
                with reading(unit.path):
                    while position < unit.offset:
                        position += len(_read_some(content, min(_SKIP_BYTES, unit.offset - position)))
                    text = _read_exactly(content, unit.num_bytes)
                position += len(text)
                yield self._parse(unit, text)
        finally:
            content.close()

    def _parse(self, unit: Unit, text: bytes) -> UnitRows:
        split = csv_records if unit.format == "csv" else jsonl_records
        bounds = list(split(text, True).bounds())[: unit.num_rows]
        if len(bounds) < unit.num_rows:
            raise SourceChangedError(
                f"{unit.path} has {len(bounds)} rows where {unit.num_rows} were planned (unit {unit.index})"
            )
        records = [text[start:end] for start, end in bounds]
        parse = self._parse_csv if unit.format == "csv" else self._parse_json
        return read_guarded(
            unit,
            lambda rows: parse(unit, [records[row] for row in rows]),
            lambda row: raw_value(records[row].rstrip(b"\r\n")),
        )

    def _parse_json(self, unit: Unit, lines: Sequence[bytes]) -> UnitRows:
        own = pa.schema([column for column in self.schema if not is_from_folders(column)])
        read = read_jsonl(lines, own, self.declared)
        failures = [_failure(unit, row, read.failures[row], _json_input(lines[row])) for row in sorted(read.failures)]
        rows = read.rows if len(own) == len(self.schema) else in_folders(read.rows, unit.path, self.schema)
        return _unit_rows(unit, rows, read.positions, failures)

    def _parse_csv(self, unit: Unit, records: Sequence[bytes]) -> UnitRows:
        header, given = self._header(unit), folder_values(unit.path)
        own = pa.schema([column for column in self.schema if column.name in header or column.name not in given])
        read = read_csv(b"".join(records), records, header, own)
        failures = [
            _failure(unit, row, error, _csv_input(records[row], header, error))
            for row, error in sorted(read.failures.items())
        ]
        table = add_folders(read.in_order(), unit.path, self.schema).select(self.schema.names)
        return _unit_rows(unit, ArrowRows(table=table.combine_chunks()), read.positions, failures)

    def _header(self, unit: Unit) -> tuple[str, ...]:
        key = unit.path, unit.source_tag
        if key not in self._headers:
            content = self.storage.content(unit.path)
            try:
                with reading(unit.path):
                    self._headers[key] = parse_header(read_first_record(content), unit.path)
            except PlanError as error:
                raise SourceChangedError(
                    f"the header of {unit.path} is not the one that was planned: {error}"
                ) from error
            finally:
                content.close()
        return self._headers[key]


class _Pass:
    """Reading a group of units in one go, which starts again behind the last one that was read if it fails."""

    def __init__(self, read: Callable[[Sequence[Unit]], Iterator[UnitRows]], group: Sequence[Unit]) -> None:
        self._read = read
        self._group = group
        self._num_read = 0
        self._rows: Iterator[UnitRows] | None = None

    def next(self) -> UnitRows:
        if self._rows is None:
            self._rows = self._read(self._group[self._num_read :])
        try:
            rows = next(self._rows)
        except SourceError:
            self._rows = None
            raise
        self._num_read += 1
        return rows

    def skip(self) -> None:
        """Leaves the next unit out; those behind it are read in a pass of their own."""
        self._num_read += 1
        self._rows = None


def _read_some(content: Content, size: int) -> bytes:
    found = content.read(size)
    if not found:
        raise EOFError("the content ends before the unit")
    return found


def _read_exactly(content: Content, size: int) -> bytes:
    pieces = []
    while size > 0:
        pieces.append(_read_some(content, size))
        size -= len(pieces[-1])
    return b"".join(pieces)


def _rows_of(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The rows at these positions, which are in order."""
    return table if len(rows) == table.num_rows else table.take(pa.array(rows, pa.int64()))


def _unit_rows(unit: Unit, rows: Rows, positions: Sequence[int], failures: Sequence[RowFailure]) -> UnitRows:
    numbers = np.asarray(positions, dtype=np.int64) + unit.first_row
    return UnitRows(unit=unit, rows=rows, row_numbers=numbers, failures=tuple(failures))


def _failure(unit: Unit, position: int, error: RowError, given: JsonRow) -> RowFailure:
    return RowFailure(row=unit.first_row + position, kind=error.kind, message=error.message, input=given)


def _json_input(line: bytes) -> JsonRow:
    """The line as it was: the object on it, or its bytes if it holds none."""
    try:
        parse_object(line)
    except RowError:
        return raw_value(line.rstrip(b"\r\n"))
    return JsonText(line.strip())


def _csv_input(record: bytes, header: tuple[str, ...], error: RowError) -> dict[str, Any]:
    """The record's cells as text where it has the right ones, else the raw record."""
    if error.kind != "schema_mismatch":
        return raw_value(record.rstrip(b"\r\n"))
    schema = pa.schema([(name, pa.string()) for name in header])
    return json_rows(read_csv(record, [record], header, schema).in_order())[0]
