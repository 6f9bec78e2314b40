"""Where text can be cut: the ends of its records, and the grouping of records into units.

A record of JSONL is a line; a record of CSV may span lines inside quotes. `Records` describes a
block of whole records by where each ends and whether it is a row: blank records (only white space
in JSONL, nothing at all in CSV) are not rows. `Cutter` groups records into `RecordRange`s bounded
by rows and by bytes, the same ones however the text arrives.

All offsets are bytes. Numpy finds newlines at about 200 MB/s; only text that holds quotes needs the regular expressions.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.io.inputs import Content

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BOM = b"\xef\xbb\xbf"
MAX_UNIT_BYTES = 8 << 20
BLOCK_BYTES = 4 << 20
MAX_CSV_RECORD_BYTES = 64 << 20

_NEWLINE = 10
_WHITE_SPACE = b" \t\r\n"
# A field in quotes (which may hold newlines and doubled quotes), or a bare one; possessive, so that no field is scanned twice.
_CSV_FIELD = rb'(?:"(?:[^"]++|"")*+"[^,\n]*+|[^",\n][^,\n]*+|)'
_CSV_RECORD = re.compile(rb"%s(?:,%s)*+\n" % (_CSV_FIELD, _CSV_FIELD))


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """Whole records in a row: where each ends [N], counted from the start of their bytes, and whether it is a row [N]."""

    ends: Int64Array
    is_row: BoolArray

    @property
    def num_rows(self) -> int:
        return int(np.count_nonzero(self.is_row))

    def bounds(self) -> Iterator[tuple[int, int]]:
        """Start and end of each row, in order."""
        starts = np.concatenate(([0], self.ends[:-1]))
        return zip(starts[self.is_row].tolist(), self.ends[self.is_row].tolist(), strict=True)


Splitter = Callable[[bytes, bool], Records]
"""Finds the records of bytes that start at one; those not ended by a newline are left out, unless told that the text ends there."""


def jsonl_records(text: bytes, is_end: bool) -> Records:
    """The lines of `text`."""
    ends = _line_ends(text, is_end)
    return Records(ends=ends, is_row=_is_row(text, ends, _WHITE_SPACE))


def csv_records(text: bytes, is_end: bool) -> Records:
    """The CSV records of `text`.

    A quote that is not closed within `MAX_CSV_RECORD_BYTES`, or by the end, cannot have been meant: its line is a record by itself.
    """
    if b'"' not in text:
        ends = _line_ends(text, is_end)
        return Records(ends=ends, is_row=_is_row(text, ends, b"\r\n"))
    if is_end and not text.endswith(b"\n"):
        records = csv_records(text + b"\n", True)
        return Records(ends=np.minimum(records.ends, len(text)), is_row=records.is_row)
    found: list[int] = []
    position = 0
    while position < len(text):
        match = _CSV_RECORD.match(text, position)
        if match is not None:
            position = match.end()
        elif is_end or len(text) - position > MAX_CSV_RECORD_BYTES:
            newline = text.find(b"\n", position)
            if newline < 0:
                break
            position = newline + 1
        else:
            break
        found.append(position)
    ends = np.array(found, dtype=np.int64)
    return Records(ends=ends, is_row=_is_row(text, ends, b"\r\n"))


def _line_ends(text: bytes, is_end: bool) -> Int64Array:
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _NEWLINE).astype(np.int64) + 1
    if is_end and text and not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    return ends


def _is_row(text: bytes, ends: Int64Array, blank: bytes) -> BoolArray:
    """Whether each record holds more than the bytes of `blank`; only those that start with one of them are looked at closely."""
    if not len(ends):
        return np.zeros(0, dtype=np.bool_)
    starts = np.concatenate(([0], ends[:-1]))
    first = np.frombuffer(text, dtype=np.uint8)[starts]
    is_row: BoolArray = first != _NEWLINE
    for record in np.flatnonzero(is_row & np.isin(first, np.frombuffer(blank, dtype=np.uint8))):
        is_row[record] = bool(text[starts[record] : ends[record]].strip(blank))
    return is_row


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole records of a text: the byte they start at, their bytes, and where each ends within those."""

    offset: int
    text: bytes
    records: Records


def iter_blocks(content: Content, splitter: Splitter, *, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Reads a stream to its end in blocks. A byte order mark at its start belongs to no record."""
    rest, offset = content.read(len(BOM)), 0
    while len(rest) < len(BOM) and (more := content.read(len(BOM) - len(rest))):
        rest += more
    if rest == BOM:
        rest, offset = b"", len(BOM)
    wanted = block_bytes
    while text := content.read(wanted):
        rest += text
        records = splitter(rest, False)
        if not len(records.ends):
            wanted = max(
                block_bytes, len(rest)
            )  # a record longer than a block: double, so that it is not rescanned often
            continue
        end = int(records.ends[-1])
        yield Block(offset, rest[:end], records)
        rest, offset, wanted = rest[end:], offset + end, block_bytes
    if rest:
        yield Block(offset, rest, splitter(rest, True))


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Bytes `offset` to `offset + num_bytes` of a text: whole records, `num_rows` of them rows."""

    offset: int
    num_bytes: int
    num_rows: int


@dataclass(slots=True)
class Cutter:
    """Groups records into ranges of at most `max_rows` rows and `max_bytes` bytes; a longer record is a range alone.

    `offset` is where the next range starts. The ranges cover all that is pushed except for
    stretches without any row.
    """

    max_rows: int
    max_bytes: int
    offset: int
    _ends: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _is_row: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    def push(self, records: Records) -> Iterator[RecordRange]:
        """Adds the records that follow those pushed before, and yields the ranges that are now complete."""
        start = int(self._ends[-1]) if len(self._ends) else self.offset
        self._ends = np.concatenate((self._ends, records.ends + start))
        self._is_row = np.concatenate((self._is_row, records.is_row))
        yield from self._cut(is_last=False)

    def finish(self) -> Iterator[RecordRange]:
        """Yields what is left."""
        yield from self._cut(is_last=True)

    def _cut(self, *, is_last: bool) -> Iterator[RecordRange]:
        rows = np.cumsum(self._is_row, dtype=np.int64)  # rows up to and including each record
        first = 0
        while first < len(self._ends):
            before = int(rows[first - 1]) if first else 0
            end = self._end_of_range(rows, first, before)
            if end == len(self._ends) and not is_last:
                break
            yield from self._range(end, int(rows[end - 1]) - before)
            first = end
        self._ends, self._is_row = self._ends[first:], self._is_row[first:]

    def _end_of_range(self, rows: Int64Array, first: int, before: int) -> int:
        """The record after the last one of the range that starts at `first`."""
        by_rows = int(np.searchsorted(rows, before + self.max_rows, side="right"))
        by_bytes = int(np.searchsorted(self._ends, self.offset + self.max_bytes, side="right"))
        return max(min(by_rows, by_bytes), first + 1)

    def _range(self, end: int, num_rows: int) -> Iterator[RecordRange]:
        start, self.offset = self.offset, int(self._ends[end - 1])
        if num_rows:
            yield RecordRange(start, self.offset - start, num_rows)
