"""JSON lines as an input: units are lines. Plain files are planned in stretches: a stretch has the lines that start within it,
wherever they end.

Parsing is `pipelines.rows.jsonl`, the types of columns are found by `pipelines.formats.json_shape`.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.hive import folder_values, is_from_folders
from pipelines.formats.json_line import parse_object
from pipelines.formats.json_shape import RowShape, shape_of_lines
from pipelines.formats.json_values import JsonText, raw_value
from pipelines.formats.records import BOM, Block, iter_blocks, jsonl_records
from pipelines.input_formats.input_format import (
    ColumnsAtHead,
    InputFormat,
    RowsWanted,
    Stretch,
    UnitsFound,
    UnitsWanted,
    whole_file,
)
from pipelines.input_formats.json_layout import check_json_lines
from pipelines.input_formats.layout import HEAD_BYTES
from pipelines.input_formats.text import TextUnits, opened_text, read_records
from pipelines.io.inputs import Storage, compression_of
from pipelines.rows.folder_rows import in_folders
from pipelines.rows.jsonl import read_jsonl
from pipelines.rows.read_guard import UnitContent
from pipelines.rows.rows import JsonRow, RowFailure, UnitRows
from pipelines.rows.unit import Unit

_TAIL_BYTES = 1 << 20
_HEAD_LINES = 1000


def _columns_at_head(storage: Storage, path: str) -> ColumnsAtHead:
    """The fields of the objects in the first bytes; lines that hold none are the run's affair."""
    names: dict[str, None] = {}
    with opened_text(storage, path, check_json_lines) as content:
        lines = content.read(HEAD_BYTES).splitlines()[:_HEAD_LINES]
    for line in lines:
        try:
            names.update(dict.fromkeys(parse_object(line)))
        except RowError:
            continue
    return ColumnsAtHead(names=tuple(names), is_all=False)


def _stretches(path: str, size: int, num_bytes: int) -> Iterable[tuple[int, int]]:
    if compression_of(path) is not None:
        return whole_file(path, size, num_bytes)
    return ((start, min(start + num_bytes, size)) for start in range(0, size, num_bytes))


def scan_lines(wanted: UnitsWanted, stretch: Stretch) -> TextUnits:
    """The units of a stretch, whatever is on its lines."""
    units = TextUnits(wanted.unit_rows)
    for block in _blocks(wanted.storage, stretch):
        units.add(block)
        if units.has_enough(wanted):
            break
    return units


def _scan(wanted: UnitsWanted, stretch: Stretch) -> UnitsFound:
    units, shape = TextUnits(wanted.unit_rows), RowShape()
    for block in _blocks(wanted.storage, stretch):
        units.add(block)
        shape.merge(_shape(wanted, block, stretch.path))
        if units.has_enough(wanted):
            break
    return units.finish(shape=shape)


def _blocks(storage: Storage, stretch: Stretch) -> Iterator[Block]:
    if compression_of(stretch.path) is None:
        yield _own_lines(storage, stretch)
        return
    with opened_text(storage, stretch.path, check_json_lines) as content:
        yield from iter_blocks(content, jsonl_records)


def _shape(wanted: UnitsWanted, block: Block, path: str) -> RowShape:
    """The shape of a block's objects. Where all needed types are declared, nothing has to be parsed, but to know whether a column
    is the lines' own or their folders'."""
    columns = wanted.columns
    named = {*columns.named, *columns.optional}
    known = wanted.declared - folder_values(path).keys()
    if columns.carried is not None and named <= known:
        return RowShape()
    lines = (block.text[start:end] for start, end in block.records.bounds())
    return shape_of_lines(lines, lambda name: columns.is_named(name) and name not in known)


def _own_lines(storage: Storage, stretch: Stretch) -> Block:
    """The lines that start in the stretch. What a line has before it was looked at together with the stretch before."""
    path, start = stretch.path, stretch.start
    if start == 0:
        text = storage.read(path, 0, stretch.end)
        check_json_lines(path, text[:HEAD_BYTES])
        if text.startswith(BOM):
            start, text = len(BOM), text[len(BOM) :]
    else:
        text = storage.read(path, start - 1, stretch.end - start + 1)
        newline = text.find(b"\n")
        if newline < 0 or newline == len(text) - 1:  # a line that goes through, or one that ends with the stretch
            return Block(stretch.end, b"", jsonl_records(b"", True))
        start, text = start + newline, text[newline + 1 :]
    if text and not text.endswith(b"\n"):
        text += _rest_of_line(storage, stretch)
    return Block(start, text, jsonl_records(text, True))


def _rest_of_line(storage: Storage, stretch: Stretch) -> bytes:
    """What comes after the stretch, up to and including the first newline."""
    pieces: list[bytes] = []
    position, step = stretch.end, _TAIL_BYTES
    while position < stretch.size:
        piece = storage.read(stretch.path, position, min(step, stretch.size - position))
        newline = piece.find(b"\n")
        if newline >= 0:
            pieces.append(piece[: newline + 1])
            break
        pieces.append(piece)
        position, step = position + len(piece), step * 2
    return b"".join(pieces)


def _read(wanted: RowsWanted, units: Sequence[Unit]) -> Iterator[UnitContent]:
    return read_records(wanted.storage, units, jsonl_records, partial(_parse, wanted))


def _parse(wanted: RowsWanted, unit: Unit, lines: Sequence[bytes]) -> UnitRows:
    own = pa.schema([column for column in wanted.schema if not is_from_folders(column)])
    read = read_jsonl(lines, own, wanted.declared)
    failures = [RowFailure.of(unit, row, read.failures[row], _as_given(lines[row])) for row in sorted(read.failures)]
    rows = read.rows if len(own) == len(wanted.schema) else in_folders(read.rows, unit.path, wanted.schema)
    return UnitRows.of(unit, rows, read.positions, failures)


def _as_given(line: bytes) -> JsonRow:
    """The line as it was: the object on it, or its bytes if it holds none."""
    try:
        parse_object(line)
    except RowError:
        return raw_value(line.rstrip(b"\r\n"))
    return JsonText(line.strip())


JSONL = InputFormat(
    name="jsonl",
    title="JSONL",
    endings=(".jsonl", ".ndjson", ".json"),
    is_compressible=True,
    columns_at_head=_columns_at_head,
    stretches=_stretches,
    scan=_scan,
    read=_read,
)
