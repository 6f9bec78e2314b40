"""Reading units: rows that fit the run's schema, and the rows that cannot be read apart from them.

Usage:

    reader = UnitReader(schema=record.schema, declared=frozenset(job.input.schema or ()), storage=Storage.of(job.input))
    reader.read_unit(unit) -> UnitRows                                  # raises SourceError
    reader.read_units(units) -> Iterator[UnitRows | UnreadableUnit]     # retries, and goes on where it can
    group_units(units) -> Iterator[tuple[Unit, ...]]                    # which units one read task should be given together

A compressed file can only be read from its start, and a Parquet row group from its own: `read_units` reads neighbouring units that
their format reads in one pass so, however many were left out in between, and `group_units` keeps them together.

Every unit's file is compared with the plan before it is opened and again after the unit is read, so rows of a file that was rewritten
under the job never get through. A file that was only touched is known by the hash of its content.

Failures of rows: `malformed_json`, `not_an_object`, `invalid_utf8`, `malformed_csv` and
`schema_mismatch`. What is not a record is kept as `{"_raw_base64": ...}`, and so is a Parquet
value that is not valid UTF-8, in its place.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import pyarrow as pa

from pipelines.errors import SourceChangedError, SourceError
from pipelines.input_formats.input_format import Formats, RowsWanted
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import FileStat, Storage, with_retries
from pipelines.rows.read_guard import read_guarded
from pipelines.rows.row_guard import unit_fault
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.units.digest import digest_of


def group_units(units: Iterable[Unit], formats: Formats = FORMATS) -> Iterator[tuple[Unit, ...]]:
    """Splits units, in order, into those that their format reads in one pass."""
    for _, group in groupby(units, key=lambda unit: (unit.path, formats[unit.format].pass_of(unit))):
        yield tuple(group)


class ReadsUnits(Protocol):
    """What a graph reads with: a `UnitReader`, or one that leaves rows out."""

    def read_units(self, units: Iterable[Unit]) -> Iterator[UnitRows | UnreadableUnit]:
        """Reads units in order; see `UnitReader`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitReader:
    """Reads units into tables of `schema`. Picklable, with the formats that there are. `declared` are the columns whose types come from
    `input.schema`."""

    schema: pa.Schema
    declared: frozenset[str] = frozenset()
    storage: Storage = field(default_factory=Storage)
    formats: Formats = field(default_factory=lambda: FORMATS)
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict, init=False, repr=False)
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
        for group in group_units(units, self.formats):
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
        wanted = RowsWanted(schema=self.schema, storage=self.storage, declared=self.declared, kept=self._kept)
        for content in self.formats[first.format].read(wanted, group):
            rows = read_guarded(content)
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
