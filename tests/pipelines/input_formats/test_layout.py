"""Files that are not what their names say, or not laid out in records, are told as what they are, at once."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given

from pipelines.errors import PlanError
from pipelines.input_formats.json_layout import check_json_lines
from tests.pipelines.units.test_reading import Corpus

ROWS = [{"a": number, "b": {"c": [number, {"d": None}]}} for number in range(50)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
PRETTY = "".join(json.dumps(row, indent=2) + "\n" for row in ROWS)


def parquet(folder: Path) -> bytes:
    pq.write_table(pa.table({"a": [1, 2]}), folder / "made")
    return (folder / "made").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("in.jsonl", PRETTY.encode(), "spread over several lines.*jq -c"),
        ("in.jsonl.gz", gzip.compress(PRETTY.encode()), "spread over several lines"),
        ("in.json", json.dumps(ROWS[0], indent=4).encode(), "spread over several lines"),
        ("in.jsonl", PRETTY.replace("\n", "\r\n").encode(), "spread over several lines"),
        ("in.jsonl", json.dumps(ROWS, indent=1).encode(), "one JSON array"),
        ("in.jsonl", json.dumps(ROWS).encode(), "one JSON array"),
        ("in.jsonl", LINES.replace("\n", "\r").encode(), "carriage returns alone"),
        ("in.csv", b"a,b\r1,2\r3,4\r", "carriage returns alone"),
        ("in.jsonl", LINES.encode("utf-16"), "UTF-16; convert"),
        ("in.jsonl", LINES.encode("utf-16-le"), "UTF-16LE; convert"),
        ("in.csv", b"\x00a\x00,\x00b\x00\n", "UTF-16BE; convert"),
        ("in.jsonl", LINES.encode("utf-32"), "UTF-32; convert"),
        ("in.jsonl", gzip.compress(LINES.encode()), r"is gzip, .* rename it to in\.jsonl\.gz"),
        ("in.csv", zstandard.compress(b"a\n1\n"), r"is zstd, .* rename it to in\.csv\.zst"),
        ("in.jsonl.gz", zstandard.compress(LINES.encode()), r"is zstd, .* rename it to in\.jsonl\.zst"),
        ("in.jsonl.zst", gzip.compress(LINES.encode()), r"is gzip, .* rename it to in\.jsonl\.gz"),
        ("in.jsonl.gz", gzip.compress(gzip.compress(LINES.encode())), "is gzip, .*twice"),
        ("in.jsonl.gz", LINES.encode(), r"is no gzip: .* rename it to in\.jsonl"),
        ("in.jsonl.zst", LINES.encode(), r"is no zstd: .* rename it to in\.jsonl"),
        ("in.jsonl", bz2.compress(LINES.encode()), "is bzip2, .* convert it"),
        ("in.csv", lzma.compress(b"a\n1\n"), "is xz, .* convert it"),
        ("in.parquet", LINES.encode(), "is no Parquet"),
        ("in.parquet", gzip.compress(b"x"), "is gzip, though"),
        ("in.parquet", b"", r"in\.parquet: it is empty \(0 bytes\).*write it again"),
        ("in.jsonl.gz", b"", r"in\.jsonl\.gz: it is empty \(0 bytes\)"),
        ("in.csv.zst", b"", r"in\.csv\.zst: it is empty \(0 bytes\)"),
    ],
)
def test_another_layout_is_told_at_once(
    tmp_path: Path, name: str, content: bytes, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PlanError, match=told) as caught:
        Corpus(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "attempt" not in caplog.text


def test_parquet_in_text_and_cut_off_parquet_are_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(parquet(tmp_path))
    with pytest.raises(PlanError, match=r"is Parquet, .* rename it to in\.parquet"):
        Corpus(tmp_path / "in.jsonl")
    (tmp_path / "in.parquet").write_bytes(parquet(tmp_path)[:-10])
    with pytest.raises(PlanError, match="is cut off"):
        Corpus(tmp_path / "in.parquet")


def test_a_zero_byte_part_among_good_ones_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(parquet(tmp_path))
    (tmp_path / "part-1.parquet").touch()
    with pytest.raises(PlanError, match=r"part-1\.parquet: it is empty"):
        Corpus(tmp_path)


def test_an_empty_text_file_holds_no_rows(tmp_path: Path) -> None:
    (tmp_path / "part-0.jsonl").write_text(LINES)
    (tmp_path / "part-1.jsonl").touch()
    assert Corpus(tmp_path).plan.num_rows == len(ROWS)


JSON = st.recursive(
    st.one_of(st.none(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.text(), JSON), max_size=4), st.sampled_from(("\n", "\r\n")), st.booleans())
def test_one_object_a_line_is_never_refused(rows: list[dict[str, object]], end: str, is_escaped: bool) -> None:
    text = "".join(json.dumps(row, ensure_ascii=is_escaped) + end for row in rows)
    check_json_lines("in.jsonl", text.encode(errors="replace"))
    check_json_lines("in.json", text.encode(errors="replace"))


@pytest.mark.parametrize("first", ['{"a": 1,\n"b": 2}', "nothing", "[1, 2]", '{"a": "b\rc"}', ""])
def test_one_bad_line_refuses_no_file(first: str) -> None:
    check_json_lines("in.jsonl", f"{first}\n{LINES}".encode())
