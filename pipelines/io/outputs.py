"""The output folder as a place for files that are complete or absent.

`open_store(job.output)` (`pipelines.io.open_output`) gives a `Store`; both kinds are picklable. A local folder (also a shared one)
writes into `tmp/`, syncs and renames: `pipelines.io.local`. An S3 bucket takes one atomic PUT a file: `pipelines.io.s3`. Names
are relative, with slashes.

`create` and `replace` are what the lease and receipts stand on: of several writers exactly one succeeds.
"""

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pipelines.errors import OutputError
from pipelines.io.inputs import describe
from pipelines.io.lasting import is_expired

TMP = "tmp"

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Versioned:
    """A file's content, and what to give to `Store.replace` in order to replace exactly this content."""

    content: bytes
    version: str


class Store(Protocol):
    """Files in one folder. Everything that goes wrong is an `OutputError` with the path and the cause.

    A conditional write whose answer got lost is known by its content, so writers that compete for a file write different contents.
    """

    @property
    def location(self) -> str:
        """The folder, as a path or URL."""

    def prepare(self, folders: tuple[str, ...]) -> None:
        """Makes the folders, and checks that the place can keep what this interface promises."""

    def sweep(self) -> None:
        """Removes what unfinished writes have left in `tmp/`."""

    def read(self, name: str) -> bytes | None:
        """A file's content, None if there is no such file."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading with seeks; of an object store it is a copy on this machine's disk."""

    def write(self, name: str, content: bytes) -> None:
        """Makes or replaces a file, at once."""

    def write_with(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write a file to piece by piece; the file is made when the context ends without an error, in the place of what
        was there when it began, and of nothing else."""

    def delete(self, name: str) -> None:
        """Removes a file if it is there."""

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """The names of the files in `folder` and their sizes in bytes, in any order; a folder in it has the size -1."""

    def times(self, folder: str) -> dict[str, float]:
        """When each file in `folder` was written, by the clock of where it is, in seconds."""

    def read_versioned(self, name: str) -> Versioned | None:
        """A file's content and version, None if there is no such file."""

    def create(self, name: str, content: bytes) -> str | None:
        """Makes a file and returns its version; None if there is already one with other content."""

    def replace(self, name: str, version: str, content: bytes) -> str | None:
        """Replaces that version of a file and returns the new one; None if the file is another by now, with other content."""


def put(store: Store, name: str, found: Versioned | None, content: bytes) -> str | None:
    """Writes a file in the place of exactly what was found; None if that is no longer what is there."""
    return store.create(name, content) if found is None else store.replace(name, found.version, content)


def output_error(action: str, place: str, error: BaseException) -> OutputError:
    """An `OutputError` that says what could not be done where, why, and what helps."""
    number = error.errno if isinstance(error, OSError) else None
    advice = ""
    if number in _NO_SPACE:
        advice = "; make room and run again, what is committed stays"
    elif is_expired(error):
        advice = "; renew the credentials and run again, what is committed stays"
    elif number in _NO_ACCESS or isinstance(error, PermissionError):
        advice = "; check the permissions there and run again, what is committed stays"
    return OutputError(f"cannot {action} {place}: {describe(error)}{advice}")
