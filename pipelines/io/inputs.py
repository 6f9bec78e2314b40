"""Reading files wherever they are: local paths with plain system calls, any URL through fsspec.

Usage: `storage = Storage(options)`, then `storage.stat(path)`, `storage.read(path, offset, length)`, `storage.open(path)`,
`storage.content(path)` (decompressed). Everything that goes wrong comes out as `SourceError`; `with_retries` tries such a reading
again. Nothing here writes; results go through `pipelines.io.outputs`.

The options of an fsspec file system hold secrets: they are never part of an error text or of a representation.
"""

import io
import logging
import os
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import fsspec

from models.checkpoint.remote import tag_of
from models.checkpoint.url_secrets import public_url, redacted
from pipelines.errors import LastingSourceError, PipelineError, SourceError
from pipelines.io.decompress import Compression, decompressed
from pipelines.io.lasting import is_lasting
from pipelines.job import InputSpec

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_COMPRESSIONS: Mapping[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FileStat:
    """What tells one version of a file from the next: its size in bytes, and its ETag or modification time."""

    size: int
    tag: str


class Content(Protocol):
    """A stream of bytes that is read forwards."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def compression_of(path: str) -> Compression | None:
    """The compression that a file's ending tells of, None for plain content."""
    return _COMPRESSIONS.get(posixpath.splitext(path)[1].lower())


def is_remote(path: str) -> bool:
    """Whether `path` is a URL that fsspec resolves, rather than a path of this machine."""
    return "://" in path


@dataclass(frozen=True, slots=True)
class Storage:
    """Reads files; picklable, and cheap to make. `options` are fsspec's storage options, used for URLs only; `signed` has the signed URL
    of each file that is read with one."""

    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    signed: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, spec: InputSpec) -> "Storage":
        """The storage of a job's input. Files at signed URLs have the names of their URLs without the signatures, which are this run's and
        may be others when it goes on."""
        return cls(spec.storage_options, {public_url(path): path for path in spec.paths if public_url(path) != path})

    def stat(self, path: str) -> FileStat:
        """Asks the file system itself, past every cache.

        Raises:
            SourceError: the file is missing or cannot be examined.
        """
        with reading(path):
            if not is_remote(path):
                return local_stat(os.stat(path))  # noqa: PTH116
            file_system, key = self.resolve(path)
            file_system.invalidate_cache()
            return file_stat(file_system.info(key))

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Reads exactly `length` bytes from byte `offset` on.

        Raises:
            SourceError: the file cannot be read, or ends before.
        """
        with reading(path):
            if is_remote(path):
                file_system, key = self.resolve(path)
                found = bytes(file_system.cat_file(key, start=offset, end=offset + length)) if length else b""
            else:
                with Path(path).open("rb", buffering=0) as file:
                    file.seek(offset)
                    found = _read_exactly(file, length)
        if len(found) != length:
            raise SourceError(f"cannot read {path}: it ends at byte {offset + len(found)}, before {offset + length}")
        return found

    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading with seeks. Errors of later reads are the file system's own: read inside `reading(path)`.

        Raises:
            SourceError: the file cannot be opened.
        """
        with reading(path):
            if not is_remote(path):
                return Path(path).open("rb")
            file_system, key = self.resolve(path)
            return cast("BinaryIO", file_system.open(key, "rb"))

    def content(self, path: str) -> Content:
        """Opens a file for reading forwards, decompressed if its ending says gzip or zstd; see `pipelines.io.decompress`."""
        file = self.open(path)
        compression = compression_of(path)
        return file if compression is None else decompressed(file, compression)

    def resolve(self, url: str) -> tuple[Any, str]:
        """The fsspec file system of a URL, and the URL's path there.

        Raises:
            SourceError: the URL's scheme is unknown, or what it needs is not installed.
        """
        with reading(url):
            file_system, key = fsspec.core.url_to_fs(self.signed.get(url, url), **self.options)
        return file_system, str(key)


def local_stat(found: os.stat_result) -> FileStat:
    """The size and tag of a file of this machine."""
    return FileStat(size=found.st_size, tag=str(found.st_mtime_ns))


def file_stat(info: Mapping[str, Any]) -> FileStat:
    """The size and tag in what an fsspec file system tells of a file."""
    return FileStat(size=int(info["size"] or 0), tag=tag_of(info))


def _read_exactly(file: io.FileIO, length: int) -> bytes:
    pieces = []
    while length > 0:
        piece = file.read(length)
        if not piece:
            break
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what a file system or a decoder raises into a `SourceError` that names the file."""
    try:
        yield
    except (PipelineError, AssertionError, MemoryError):
        raise
    except Exception as error:  # every fsspec back end has an error tree of its own
        kind = LastingSourceError if is_lasting(error, is_remote=is_remote(path)) else SourceError
        raise kind(f"cannot read {path}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """One line on a system's or a library's error, without the secrets of URLs: the plain reason of an OSError, else its type and text."""
    if isinstance(error, OSError) and error.strerror:
        return redacted(error.strerror)
    text = redacted(str(error).strip())
    if isinstance(error, ImportError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text or 'no text'}"


def with_retries(
    read: Callable[[], Result],
    *,
    max_attempts: int = 4,
    first_wait_s: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Calls `read` until it succeeds, waiting twice as long after each `SourceError` that may pass; see `pipelines.io.lasting`.

    Raises:
        SourceError: the last attempt's.
    """
    for attempt in range(1, max_attempts):
        try:
            return read()
        except LastingSourceError:
            raise
        except SourceError as error:
            wait_s = first_wait_s * 2 ** (attempt - 1)
            logger.warning("attempt %d of %d failed, next in %.1f s: %s", attempt, max_attempts, wait_s, error)
            sleep(wait_s)
    return read()
