"""Cutting text into records and units: nothing is lost, nothing is doubled, however the text arrives."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.formats import records as cutting
from pipelines.formats.records import BOM, Cutter, RecordRange, Splitter, csv_records, iter_blocks, jsonl_records

TEXT = st.lists(
    st.sampled_from([b"a", b"\n", b"\r\n", b"\r", b" ", b'"', b",", b"bcd", b'""', b"\xc3\xa4"]), max_size=60
).map(b"".join)
SPLITTERS = pytest.mark.parametrize("splitter", [jsonl_records, csv_records])


def ranges_of(text: bytes, splitter: Splitter, *, block_bytes: int, max_rows: int, max_bytes: int) -> list[RecordRange]:
    blocks = list(iter_blocks(io.BytesIO(text), splitter, block_bytes=block_bytes))
    if not blocks:
        return []
    cutter = Cutter(max_rows=max_rows, max_bytes=max_bytes, offset=blocks[0].offset)
    return [each for block in blocks for each in cutter.push(block.records)] + list(cutter.finish())


def rows_of(text: bytes, splitter: Splitter) -> list[bytes]:
    return [text[start:end] for start, end in splitter(text, True).bounds()]


@SPLITTERS
@given(text=TEXT)
def test_records_tile_the_text(splitter: Splitter, text: bytes) -> None:
    ends = [0, *splitter(text, True).ends.tolist()]
    assert ends == sorted(set(ends))
    assert ends[-1] == len(text)


@SPLITTERS
@given(text=TEXT, block_bytes=st.integers(1, 20), max_rows=st.integers(1, 5), max_bytes=st.integers(1, 12))
def test_units_hold_every_row_once_in_order(
    splitter: Splitter, text: bytes, block_bytes: int, max_rows: int, max_bytes: int
) -> None:
    ranges = ranges_of(text, splitter, block_bytes=block_bytes, max_rows=max_rows, max_bytes=max_bytes)
    found = [row for each in ranges for row in rows_of(text[each.offset : each.offset + each.num_bytes], splitter)]
    assert found == rows_of(text, splitter)
    assert all(each.num_rows <= max_rows for each in ranges)
    assert all(each.num_bytes <= max_bytes or each.num_rows == 1 for each in ranges)


@SPLITTERS
@given(text=TEXT, max_rows=st.integers(1, 5), max_bytes=st.integers(1, 12))
def test_units_do_not_depend_on_the_blocks_a_text_arrives_in(
    splitter: Splitter, text: bytes, max_rows: int, max_bytes: int
) -> None:
    in_small, in_one = (
        ranges_of(text, splitter, block_bytes=size, max_rows=max_rows, max_bytes=max_bytes) for size in (3, 1000)
    )
    assert in_small == in_one


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"a\nb\nc", [b"a\n", b"b\n", b"c"]),
        (b"a\r\n\r\nb\r\n", [b"a\r\n", b"b\r\n"]),
        (b"\n\n a\n \t\n", [b" a\n"]),
        (b"", []),
    ],
)
def test_lines_end_at_newlines_and_blank_ones_are_no_rows(text: bytes, rows: list[bytes]) -> None:
    assert rows_of(text, jsonl_records) == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b'a,"x\ny"\nb,c\n', [b'a,"x\ny"\n', b"b,c\n"]),
        (b'"he said ""hi\n""",c\nd', [b'"he said ""hi\n""",c\n', b"d"]),
        (b'5" pipe,foo\nb,c\n', [b'5" pipe,foo\n', b"b,c\n"]),
        (b"  ,x\n\n\r\ny\n", [b"  ,x\n", b"y\n"]),
        (b'a,"never closed\nb,c\n', [b'a,"never closed\n', b"b,c\n"]),
    ],
)
def test_csv_records_span_lines_only_inside_quotes(text: bytes, rows: list[bytes]) -> None:
    assert rows_of(text, csv_records) == rows


def test_unclosed_quote_costs_its_own_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MAX_CSV_RECORD_BYTES", 100)
    text = b'bad,"open\n' + b"good,row\n" * 100
    ranges = ranges_of(text, csv_records, block_bytes=50, max_rows=1, max_bytes=1000)
    assert len(ranges) == 101


def test_byte_order_mark_belongs_to_no_unit() -> None:
    text = BOM + b"a\nb\n"
    assert ranges_of(text, jsonl_records, block_bytes=2, max_rows=1, max_bytes=9) == [
        RecordRange(3, 2, 1),
        RecordRange(5, 2, 1),
    ]


def test_a_record_over_the_byte_limit_is_a_unit_alone() -> None:
    text = b"a\n" + b"x" * 50 + b"\nb\n"
    assert ranges_of(text, jsonl_records, block_bytes=8, max_rows=9, max_bytes=10) == [
        RecordRange(0, 2, 1),
        RecordRange(2, 51, 1),
        RecordRange(53, 2, 1),
    ]
