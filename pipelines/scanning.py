"""The parallel half of planning: what a worker finds in a stretch of the input.

A `Part` is a whole file, or a chunk of a JSONL file: the lines that start within it, wherever they end. `Scanner` goes through parts
and says where units lie in them and what columns they hold. Its memory is bounded by a chunk, and by the longest record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.csv_text import parse_header
from pipelines.cutting import (
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
from pipelines.errors import PlanError, SourceError
from pipelines.inference import RowShape, shape_of_lines
from pipelines.listing import SourceFile
from pipelines.parquet import read_footer
from pipelines.schema import Columns
from pipelines.storage import Storage, reading, with_retries
from pipelines.units import NO_ROW_GROUP

CHUNK_BYTES = 32 << 20
_TAIL_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


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
            return with_retries(lambda: scan(part))
        except (PlanError, SourceError) as error:
            return Finding(file=part.file, problem=str(error))

    def _scan_parquet(self, part: Part) -> Finding:
        footer = read_footer(self.storage, part.source.path, self.columns)
        places = [
            (group, first, num_bytes * count // num_rows, count)
            for group, (num_rows, num_bytes) in enumerate(zip(footer.num_rows, footer.num_bytes, strict=True))
            for first, count in self._row_ranges(num_rows, num_bytes)
        ]
        groups, offsets, sizes, rows = np.array(places, dtype=np.int64).reshape(-1, 4).T
        return Finding(
            file=part.file, row_groups=groups, offsets=offsets, num_bytes=sizes, num_rows=rows, schema=footer.schema
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
        return self._text_finding(part, pieces, self._shape(block))

    def _scan_stream(self, part: Part) -> Finding:
        is_csv = part.source.format == "csv"
        cutter: Cutter | None = None
        shape, schema = RowShape(), None
        pieces: list[Piece] = []
        content = self.storage.content(part.source.path)
        try:
            with reading(part.source.path):
                for block in iter_blocks(content, csv_records if is_csv else jsonl_records):
                    if cutter is None:
                        _check_start(part.source.path, block.text)
                    if is_csv and schema is None:
                        schema, block = _without_header(block, part.source.path)
                    cutter = cutter or self._cutter(block.offset)
                    pieces += cutter.push(block.records)
                    if not is_csv:
                        shape.merge(self._shape(block))
        finally:
            content.close()
        pieces += cutter.finish() if cutter else ()
        return self._text_finding(part, pieces, None if is_csv else shape, schema)

    def _cutter(self, offset: int) -> Cutter:
        return Cutter(max_rows=self.unit_rows, max_bytes=MAX_UNIT_BYTES, offset=offset)

    def _shape(self, block: Block) -> RowShape:
        """The shape of a block's objects. Where all needed types are declared, nothing has to be parsed."""
        named = {*self.columns.named, *self.columns.optional}
        if self.columns.carried is not None and named <= self.declared:
            return RowShape()
        return shape_of_lines((block.text[start:end] for start, end in block.records.bounds()), self._is_inferred)

    def _is_inferred(self, name: str) -> bool:
        return self.columns.is_named(name) and name not in self.declared

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


def _own_lines(storage: Storage, part: Part) -> Block:
    """The lines that start in the part. What a line has before it was looked at together with the chunk before."""
    path, start = part.source.path, part.start
    if start == 0:
        text = storage.read(path, 0, part.end)
        _check_start(path, text)
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


def _check_start(path: str, text: bytes) -> None:
    """Raises:
    PlanError: the file is in an encoding or a layout that cannot be meant to be read line by line.
    """
    if text.startswith(_UTF16):
        raise PlanError(f"{path} is UTF-16; convert it to UTF-8, for example with: iconv -f UTF-16 -t UTF-8")
    is_json = path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".json")
    if is_json and text[:4096].lstrip().startswith(b"["):
        raise PlanError(f"{path} holds one JSON array; one object a line is needed, for example with: jq -c '.[]'")


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
