"""Compressed content is whole or an error; gzip and zstandard themselves are the judges."""

import gzip
import io
import zlib
from pathlib import Path

import hypothesis.strategies as st
import pytest
import zstandard
from hypothesis import given, settings

from pipelines.io.decompress import Compression, decompressed
from tests.pipelines.units.test_reading import Corpus

TEXT = b"".join(b"line %d of some text\n" % number for number in range(20_000))
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def read_all(file: bytes, compression: Compression, size: int = 1 << 20) -> bytes:
    content = decompressed(io.BytesIO(file), compression)
    return b"".join(iter(lambda: content.read(size), b""))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=4), st.integers(0, 600), st.integers(1, 300))
def test_members_and_padding_are_one_content(parts: list[bytes], padding: int, size: int) -> None:
    zeros = bytes(padding)
    assert read_all(zeros.join(map(gzip.compress, parts)) + zeros if parts else b"", "gzip", size) == b"".join(parts)
    frames = SKIPPABLE.join(map(zstandard.compress, parts)) + SKIPPABLE
    assert read_all(frames, "zstd", size) == b"".join(parts)


@pytest.mark.parametrize("window_log", [10, 27, 28, 31])
def test_zstd_windows_of_every_size_are_read(window_log: int) -> None:
    settings = zstandard.ZstdCompressionParameters(window_log=window_log, compression_level=1)
    compressor = zstandard.ZstdCompressor(compression_params=settings)
    writer = compressor.compressobj()  # no content size in its header, so that its window is what it is
    assert read_all(writer.compress(TEXT) + writer.flush(), "zstd") == TEXT


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.sampled_from(("gzip", "zstd")))
def test_a_file_that_is_cut_off_is_never_a_short_content(cut: int, compression: Compression) -> None:
    file = gzip.compress(TEXT) if compression == "gzip" else zstandard.compress(TEXT)
    with pytest.raises(EOFError):
        read_all(file[: len(file) * cut // 1001 + 1][: len(file) - 1], compression)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_follows_a_member_has_to_be_another(compression: Compression) -> None:
    file = gzip.compress(b"x") if compression == "gzip" else zstandard.compress(b"x")
    with pytest.raises((gzip.BadGzipFile, zlib.error, zstandard.ZstdError)):
        read_all(file + b"rubbish that is no member", compression)


def test_a_zstd_bomb_is_read_in_bounded_pieces() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    content = decompressed(io.BytesIO(bomb), "zstd")
    assert content.read(10) == bytes(10)
    assert len(content._content) < 80 << 20  # type: ignore[attr-defined]


def test_a_long_window_from_the_field_is_read() -> None:
    corpus = Corpus(Path("tests/cases/zstd-long-window/input.jsonl.zst").resolve())
    assert corpus.rows() == [{"x": 1}, {"x": 2}]
