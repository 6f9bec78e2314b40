"""The parallel half of planning: what a worker finds in a stretch of the input.

A `Part` is a whole file, or a chunk of a JSONL file: the lines that start within it, wherever they end. `Scanner` goes through parts
and says where units lie in them and what columns they hold. Its memory is bounded by a chunk, and by the longest record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.errors import PlanError, SourceError
from pipelines.formats.csv_text import parse_header
from pipelines.formats.hive import folder_values, with_folders
from pipelines.formats.json_shape import RowShape, shape_of_lines
from pipelines.formats.parquet import read_footer
from pipelines.formats.records import (
    BOM,
    MAX_UNIT_BYTES,
    Block,
    Cutter,
    Int64Array,
    Piece,
    Records,
    csv_records,
    iter_blocks,
    jsonl_records,
)
from pipelines.formats.schema import Columns
from pipelines.io.inputs import Content, Storage, compression_of, reading, with_retries
from pipelines.rows.unit import NO_ROW_GROUP
from pipelines.units.layout import HEAD_BYTES, check_text, why_unreadable
from pipelines.units.listing import SourceFile

CHUNK_BYTES = 32 << 20
_TAIL_BYTES = 1 << 20
_MARK_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Bytes `start` to `end` of a file; all of it unless the file is plain JSONL. `file` is its number in the listing."""

    file: int
    source: SourceFile
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a part holds: places, bytes and rows of its units in order [U], and its columns, as a schema or as a shape.

    `problem` is set, and nothing else, where the part cannot be planned.
    """

    file: int
    row_groups: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    offsets: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    num_bytes: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    num_rows: Int64Array = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    schema: pa.Schema | None = None
    shape: RowShape | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanner:
    """Goes through parts; picklable. JSONL is parsed for the types of needed columns whose type is not `declared`."""

    storage: Storage
    columns: Columns
    unit_rows: int
    declared: frozenset[str] = frozenset()

    def __call__(self, parts: Sequence[Part]) -> list[Finding]:
        """Scans some parts, retrying what cannot be read."""
        return [self._scan(part) for part in parts]

    def _scan(self, part: Part) -> Finding:
        scan = self._scan_stream
        if part.source.format == "parquet":
            scan = self._scan_parquet
        elif part.source.format == "jsonl" and part.source.is_cuttable:
            scan = self._scan_chunk
        try:
            if not part.source.size and part.source.always_has_bytes:
                raise SourceError("the file is empty")
            return with_retries(lambda: scan(part))
        except PlanError as error:
            return Finding(file=part.file, problem=str(error))
        except SourceError as error:
            return Finding(file=part.file, problem=what_is_wrong(self.storage, part.source) or str(error))

    def _scan_parquet(self, part: Part) -> Finding:
        footer = read_footer(self.storage, part.source.path, self.columns)
        places = [
            (group, first, num_bytes * count // num_rows, count)
            for group, (num_rows, num_bytes) in enumerate(zip(footer.num_rows, footer.num_bytes, strict=True))
            for first, count in self._row_ranges(num_rows, num_bytes)
        ]
        groups, offsets, sizes, rows = np.array(places, dtype=np.int64).reshape(-1, 4).T
        return Finding(
            file=part.file,
            row_groups=groups,
            offsets=offsets,
            num_bytes=sizes,
            num_rows=rows,
            schema=with_folders(footer.schema, part.source.path),
        )

    def _row_ranges(self, num_rows: int, num_bytes: int) -> Iterator[tuple[int, int]]:
        """Cuts a row group by rows, and by bytes as if all its rows were equally long."""
        if num_rows:
            fitting = max(1, MAX_UNIT_BYTES * num_rows // max(num_bytes, 1))
            step = min(self.unit_rows, fitting)
            yield from ((first, min(step, num_rows - first)) for first in range(0, num_rows, step))

    def _scan_chunk(self, part: Part) -> Finding:
        block = _own_lines(self.storage, part)
        cutter = self._cutter(block.offset)
        pieces = [*cutter.push(block.records), *cutter.finish()]
        return self._text_finding(part, pieces, self._shape(block, part.source.path))

    def _scan_stream(self, part: Part) -> Finding:
        is_csv = part.source.format == "csv"
        cutter: Cutter | None = None
        shape, schema = RowShape(), None
        pieces: list[Piece] = []
        content: Content = self.storage.content(part.source.path)
        try:
            with reading(part.source.path):
                content = Ahead(content)
                check_text(part.source.path, content.head, part.source.format)
                for block in iter_blocks(content, csv_records if is_csv else jsonl_records):
                    if is_csv and schema is None:
                        schema, block = _without_header(block, part.source.path)
                        schema = schema and with_folders(schema, part.source.path)
                    cutter = cutter or self._cutter(block.offset)
                    pieces += cutter.push(block.records)
                    if not is_csv:
                        shape.merge(self._shape(block, part.source.path))
        finally:
            content.close()
        pieces += cutter.finish() if cutter else ()
        return self._text_finding(part, pieces, None if is_csv else shape, schema)

    def _cutter(self, offset: int) -> Cutter:
        return Cutter(max_rows=self.unit_rows, max_bytes=MAX_UNIT_BYTES, offset=offset)

    def _shape(self, block: Block, path: str) -> RowShape:
        """The shape of a block's objects. Where all needed types are declared, nothing has to be parsed, but to know whether a column
        is the lines' own or their folders'."""
        named = {*self.columns.named, *self.columns.optional}
        known = self.declared - folder_values(path).keys()
        if self.columns.carried is not None and named <= known:
            return RowShape()
        lines = (block.text[start:end] for start, end in block.records.bounds())
        return shape_of_lines(lines, lambda name: self.columns.is_named(name) and name not in known)

    def _text_finding(
        self, part: Part, pieces: Sequence[Piece], shape: RowShape | None, schema: pa.Schema | None = None
    ) -> Finding:
        return Finding(
            file=part.file,
            row_groups=np.full(len(pieces), NO_ROW_GROUP, dtype=np.int64),
            offsets=np.array([piece.offset for piece in pieces], dtype=np.int64),
            num_bytes=np.array([piece.num_bytes for piece in pieces], dtype=np.int64),
            num_rows=np.array([piece.num_rows for piece in pieces], dtype=np.int64),
            schema=schema,
            shape=shape,
        )


def what_is_wrong(storage: Storage, source: SourceFile) -> str | None:
    """What a file that cannot be read is, if its first and last bytes tell."""
    kind = "Parquet" if source.format == "parquet" else compression_of(source.path)
    if kind is None:
        return None
    size = min(source.size, _MARK_BYTES)
    try:
        head, tail = (storage.read(source.path, start, size) for start in (0, source.size - size))
    except SourceError:
        return None
    return why_unreadable(source.path, head, tail, kind)


def _own_lines(storage: Storage, part: Part) -> Block:
    """The lines that start in the part. What a line has before it was looked at together with the chunk before."""
    path, start = part.source.path, part.start
    if start == 0:
        text = storage.read(path, 0, part.end)
        check_text(path, text[:HEAD_BYTES], "jsonl")
        if text.startswith(BOM):
            start, text = len(BOM), text[len(BOM) :]
    else:
        text = storage.read(path, start - 1, part.end - start + 1)
        newline = text.find(b"\n")
        if newline < 0 or newline == len(text) - 1:  # a line that goes through, or one that ends with the part
            return Block(part.end, b"", jsonl_records(b"", True))
        start, text = start + newline, text[newline + 1 :]
    if text and not text.endswith(b"\n"):
        text += _rest_of_line(storage, part)
    return Block(start, text, jsonl_records(text, True))


def _rest_of_line(storage: Storage, part: Part) -> bytes:
    """What comes after the part, up to and including the first newline."""
    pieces: list[bytes] = []
    position, step = part.end, _TAIL_BYTES
    while position < part.source.size:
        piece = storage.read(part.source.path, position, min(step, part.source.size - position))
        newline = piece.find(b"\n")
        if newline >= 0:
            pieces.append(piece[: newline + 1])
            break
        pieces.append(piece)
        position, step = position + len(piece), step * 2
    return b"".join(pieces)


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
