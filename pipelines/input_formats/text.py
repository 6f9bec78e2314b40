"""What text formats share: their content looked at before it is read, cut into units, and read again as the records of a unit.

A unit of text that can be cut is a range of bytes of its file; one of compressed text is a range of the content, which is read from its
start.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.errors import SourceChangedError
from pipelines.formats.json_shape import RowShape
from pipelines.formats.json_values import raw_value
from pipelines.formats.records import MAX_UNIT_BYTES, Block, Cutter, RecordRange, Splitter
from pipelines.input_formats.input_format import UnitsFound, UnitsWanted
from pipelines.input_formats.layout import HEAD_BYTES
from pipelines.io.inputs import Content, Storage, reading
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import NO_ROW_GROUP, Unit

_SKIP_BYTES = 4 << 20


class Ahead:
    """Content of which the first bytes are looked at before they are read."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._rest = b""
        while len(self._rest) < HEAD_BYTES and (more := content.read(HEAD_BYTES - len(self._rest))):
            self._rest += more
        self.head = self._rest

    def read(self, size: int) -> bytes:
        found, self._rest = self._rest[:size], self._rest[size:]
        return found or self._content.read(size)

    def close(self) -> None:
        self._content.close()


@contextmanager
def opened_text(storage: Storage, path: str, check: Callable[[str, bytes], None]) -> Iterator[Ahead]:
    """A file's content, decompressed, from its start, once `check(path, head)` has passed its first bytes.

    Raises:
        SourceError: it cannot be read; PlanError: what `check` raises.
    """
    content: Content = storage.content(path)
    try:
        with reading(path):
            ahead = Ahead(content)
            check(path, ahead.head)
            yield ahead
    finally:
        content.close()


@dataclass(slots=True)
class TextUnits:
    """Collects the units of a text whose blocks come in turn, of at most `unit_rows` rows each."""

    unit_rows: int
    num_rows: int = 0
    _cutter: Cutter | None = None
    _ranges: list[RecordRange] = field(default_factory=list)

    def add(self, block: Block) -> None:
        if self._cutter is None:
            self._cutter = Cutter(max_rows=self.unit_rows, max_bytes=MAX_UNIT_BYTES, offset=block.offset)
        self._ranges += self._cutter.push(block.records)
        self.num_rows += block.records.num_rows

    def has_enough(self, wanted: UnitsWanted) -> bool:
        """Whether there are as many rows as are wanted."""
        return wanted.enough_rows is not None and self.num_rows >= wanted.enough_rows

    def finish(self, *, schema: pa.Schema | None = None, shape: RowShape | None = None) -> UnitsFound:
        """All units, with what is known of the columns."""
        if self._cutter is not None:
            self._ranges += self._cutter.finish()
        ranges = self._ranges
        return UnitsFound(
            row_groups=np.full(len(ranges), NO_ROW_GROUP, dtype=np.int64),
            offsets=np.array([each.offset for each in ranges], dtype=np.int64),
            num_bytes=np.array([each.num_bytes for each in ranges], dtype=np.int64),
            num_rows=np.array([each.num_rows for each in ranges], dtype=np.int64),
            schema=schema,
            shape=shape,
        )


def read_records(
    storage: Storage, units: Sequence[Unit], split: Splitter, parse: Callable[[Unit, Sequence[bytes]], UnitRows]
) -> Iterator[UnitContent]:
    """The rows that `parse` makes of the records of each unit; all are of one file, and in one pass if it cannot be cut.

    Raises:
        SourceError: the file cannot be read, or has fewer records than were planned.
    """
    texts = _cut_texts if units[0].is_cuttable else _texts_in_turn
    for unit, text in zip(units, texts(storage, units), strict=True):
        yield _content(unit, _records_of(unit, text, split), parse)


def _content(unit: Unit, records: Sequence[bytes], parse: Callable[[Unit, Sequence[bytes]], UnitRows]) -> UnitContent:
    return UnitContent(
        unit=unit,
        parse=lambda rows: parse(unit, [records[row] for row in rows]),
        given=lambda row: raw_value(records[row].rstrip(b"\r\n")),
    )


def _cut_texts(storage: Storage, units: Sequence[Unit]) -> Iterator[bytes]:
    for unit in units:
        yield storage.read(unit.path, unit.offset, unit.num_bytes)


def _texts_in_turn(storage: Storage, units: Sequence[Unit]) -> Iterator[bytes]:
    content = storage.content(units[0].path)
    try:
        position = 0
        for unit in units:
            with reading(unit.path):
                while position < unit.offset:
                    position += len(_read_some(content, min(_SKIP_BYTES, unit.offset - position)))
                text = _read_exactly(content, unit.num_bytes)
            position += len(text)
            yield text
    finally:
        content.close()


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


def _records_of(unit: Unit, text: bytes, split: Splitter) -> list[bytes]:
    """The records of a unit that are rows, ends included.

    Raises:
        SourceChangedError: there are fewer than were planned.
    """
    bounds = list(split(text, True).bounds())[: unit.num_rows]
    if len(bounds) < unit.num_rows:
        raise SourceChangedError(
            f"{unit.path} has {len(bounds)} rows where {unit.num_rows} were planned (unit {unit.index})"
        )
    return [text[start:end] for start, end in bounds]
