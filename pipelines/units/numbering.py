"""Units with their numbers, made of what scanning finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipelines.rows.unit import Unit
from pipelines.units.listing import SourceFile
from pipelines.units.scanning import Finding

_UNITS_PER_BATCH = 8192

Sink = Callable[[Sequence[Unit]], None]


@dataclass(slots=True)
class Numbering:
    """Makes numbered units of findings that arrive in order."""

    files: Sequence[SourceFile]
    sink: Sink
    limit: int | None
    num_units: int = 0
    num_rows: int = 0
    num_bytes: int = 0
    is_full: bool = False
    _file: int = -1
    _first_row: int = 0
    _batch: list[Unit] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        if finding.file != self._file:
            self._file, self._first_row = finding.file, 0
        found = finding.units
        columns = (found.row_groups, found.offsets, found.num_bytes, found.num_rows)
        for row_group, offset, num_bytes, num_rows in zip(*(column.tolist() for column in columns), strict=True):
            if self.limit is not None:
                num_rows = min(num_rows, self.limit - self.num_rows)
            self._add_unit(row_group, offset, num_bytes, num_rows)
            self.is_full = self.num_rows == self.limit
            if self.is_full:
                return

    def _add_unit(self, row_group: int, offset: int, num_bytes: int, num_rows: int) -> None:
        source = self.files[self._file]
        unit = Unit(
            index=self.num_units,
            path=source.path,
            relative_path=source.relative_path,
            format=source.format,
            row_group=row_group,
            offset=offset,
            first_row=self._first_row,
            num_rows=num_rows,
            num_bytes=num_bytes,
            source_size=source.size,
            source_tag=source.tag,
            is_cuttable=source.is_cuttable,
            source_digest=source.digest,
        )
        self._batch.append(unit)
        self._first_row += num_rows
        self.num_units += 1
        self.num_rows += num_rows
        self.num_bytes += num_bytes
        if len(self._batch) == _UNITS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Hands on the units that wait."""
        if self._batch:
            self.sink(self._batch)
            self._batch = []
