"""Which errors are tried again: those that may pass, and no others."""

import errno
import gzip
import io
import zlib
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipelines.errors import LastingSourceError, SourceError
from pipelines.io.inputs import reading, with_retries


def damaged_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [f"text {number}" for number in range(1000)]}), buffer, compression="zstd")
    content = bytearray(buffer.getvalue())
    content[40:400] = bytes(360)
    return bytes(content)


def fail(error: Exception) -> Callable[[], object]:
    def read() -> object:
        raise error

    return read


LASTING = {
    "no gzip": lambda: gzip.decompress(b"no gzip at all"),
    "no zlib": lambda: zlib.decompress(b"no zlib"),
    "no zstd": lambda: zstandard.decompress(b"no zstd"),
    "no parquet": lambda: pq.read_table(io.BytesIO(b"no parquet")),
    "no utf-8": b"\xff".decode,
    "a type that Arrow lacks": fail(pa.ArrowNotImplementedError("128 bits")),
    "no right": fail(PermissionError(errno.EACCES, "Permission denied")),
    "a folder": fail(IsADirectoryError(errno.EISDIR, "Is a directory")),
    "a package that is missing": fail(ImportError("install s3fs")),
}
PASSING = {
    "a disk": fail(OSError(errno.EIO, "Input/output error")),
    "a file server": fail(OSError(errno.ESTALE, "Stale file handle")),
    "a name not there yet": fail(FileNotFoundError(errno.ENOENT, "No such file")),
    "a connection": fail(ConnectionResetError("reset")),
    "time": fail(TimeoutError("too long")),
}


def waits_of(read: Callable[[], object], path: str) -> tuple[list[float], SourceError]:
    waits: list[float] = []

    def attempt() -> object:
        with reading(path):
            return read()

    with pytest.raises(SourceError) as caught:
        with_retries(attempt, sleep=waits.append)
    return waits, caught.value


@pytest.mark.parametrize("path", ["/a/file", "s3://bucket/file"])
@pytest.mark.parametrize("name", LASTING)
def test_what_cannot_change_is_not_tried_again(name: str, path: str) -> None:
    waits, error = waits_of(LASTING[name], path)
    assert not waits
    assert isinstance(error, LastingSourceError)


def test_a_damaged_page_lasts_only_in_a_file_of_this_machine() -> None:
    """Arrow does not say whether the bytes or the network were at fault."""
    damaged = damaged_parquet()
    assert not waits_of(lambda: pq.read_table(io.BytesIO(damaged)), "/a/file")[0]
    assert waits_of(lambda: pq.read_table(io.BytesIO(damaged)), "s3://bucket/file")[0]


@pytest.mark.parametrize("path", ["/a/file", "s3://bucket/file"])
@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_tried_again(name: str, path: str) -> None:
    assert waits_of(PASSING[name], path)[0] == [0.5, 1.0, 2.0]


def test_an_end_that_comes_too_early_lasts_only_in_a_file_of_this_machine() -> None:
    assert not waits_of(fail(EOFError("cut off")), "/a/file")[0]
    assert waits_of(fail(EOFError("cut off")), "s3://bucket/file")[0]
