"""What an input format is: one object with all that is asked of files of its kind, and what goes in and out of it.

A new format is a file of this room that makes an `InputFormat`, and a line in
`pipelines.input_formats.table`. Listing, planning and reading know no format by its name. Workers
are sent the object itself, so that they need not have the line.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.formats.json_shape import RowShape
from pipelines.formats.records import Int64Array
from pipelines.formats.schema import Columns
from pipelines.input_formats.layout import why_unreadable
from pipelines.io.inputs import Storage, compression_of
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.unit import Unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Bytes `start` to `end` of the file at `path`, which has `size` bytes."""

    path: str
    size: int
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitsWanted:
    """How files are to be planned: which columns are needed, `declared` ones with types of the
    spec's, and the most rows of a unit. Once `enough_rows` are found in a stretch (None: all of
    them), what is behind them may be left out: units and columns alike."""

    storage: Storage
    columns: Columns
    unit_rows: int
    declared: frozenset[str] = frozenset()
    enough_rows: int | None = None


def _no_units() -> Int64Array:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitsFound:
    """The units of a stretch in order [U], as `pipelines.rows.unit.Unit` has their places; and its
    columns: a schema where the file says their types, a shape where its values do."""

    row_groups: Int64Array = field(default_factory=_no_units)
    offsets: Int64Array = field(default_factory=_no_units)
    num_bytes: Int64Array = field(default_factory=_no_units)
    num_rows: Int64Array = field(default_factory=_no_units)
    schema: pa.Schema | None = None
    shape: RowShape | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnsAtHead:
    """The columns that the beginning of a file shows; `is_all` unless others may follow."""

    names: tuple[str, ...]
    is_all: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RowsWanted:
    """How units are to be read: into `schema`, the columns in `declared` with types of the spec's.

    `kept` is for what a format would else read again for every unit of a file, such as a header:
    by the file's path and version.
    """

    schema: pa.Schema
    storage: Storage
    declared: frozenset[str] = frozenset()
    kept: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)


def whole_file(path: str, size: int, num_bytes: int) -> Iterable[tuple[int, int]]:
    """The only stretch of a file that is planned in one go."""
    del path, num_bytes
    yield 0, size


FilesOf = Callable[[str, Sequence[str], Callable[[str], bytes]], Sequence[str] | None]


def all_files(folder: str, names: Sequence[str], read: Callable[[str], bytes]) -> None:
    """No file of a folder says which of them are input, or in which order."""
    del folder, names, read


def pass_of_text(unit: Unit) -> int:
    """Text that can be cut is read unit by unit, other text from its start in one pass."""
    return unit.index if unit.is_cuttable else -1


def pass_of_place(unit: Unit) -> int:
    """Rows that can only be decoded from the start of their row group, or batch, are read in one pass."""
    return unit.row_group


def compression_fault(path: str, head: bytes, tail: bytes) -> str | None:
    """What is wrong with a file that its name says is compressed, if it is not."""
    compression = compression_of(path)
    return None if compression is None else why_unreadable(path, head, tail, compression)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFormat:
    """One format. Picklable: the functions are those of a module.

    `name` is the word of `input.format`, `title` what people call it. `endings` are in lower case;
    where two formats have one in common, a file is of the first in the table unless the spec says
    otherwise. `is_compressible` if a file may be gzip or zstd as a whole, by a second ending.
    `has_frame` if even a file without rows has bytes.

    `columns_at_head(storage, path)`, `scan(wanted, stretch)` and `read(wanted, units)` raise
    `SourceError` for what cannot be read, and `PlanError` for what is not a file of this format.
    `read` is given units for which `pass_of` has the same number, in order, and yields the content
    of each in turn. `stretches(path, size, num_bytes)` are the ranges of bytes that are scanned
    apart, of `num_bytes` each where the format can begin anywhere, else the whole file.
    `scan_bytes` is how many bytes of text take as long to scan as a file (None: its own size).
    `fault(path, head, tail)` says what a file is that cannot be read, if its first and last bytes
    tell. `files_of(folder, names, read)` gives the names of those files of a folder that are input,
    in order, where a file of the folder says so (None: it does not); `read` gives a file's content.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    columns_at_head: Callable[[Storage, str], ColumnsAtHead]
    scan: Callable[[UnitsWanted, Stretch], UnitsFound]
    read: Callable[[RowsWanted, Sequence[Unit]], Iterator[UnitContent]]
    is_compressible: bool = False
    has_frame: bool = False
    scan_bytes: int | None = None
    stretches: Callable[[str, int, int], Iterable[tuple[int, int]]] = whole_file
    pass_of: Callable[[Unit], int] = pass_of_text
    fault: Callable[[str, bytes, bytes], str | None] = compression_fault
    files_of: FilesOf = all_files

    def is_cuttable(self, path: str) -> bool:
        """Whether a file can be read from a place in its middle: all but compressed text can."""
        return not self.is_compressible or compression_of(path) is None

    def always_has_bytes(self, path: str) -> bool:
        """Whether even a file without rows cannot be empty."""
        return self.has_frame or compression_of(path) is not None


Formats = Mapping[str, InputFormat]
"""Formats by name."""
