"""A folder as a store: files are written in `tmp/`, synced, and renamed into place; the folder is synced too.

What has to be decided between processes is decided under a lock of the file `.lock` (`flock`, which Linux turns into a lock at the
server on NFS) that the system frees when its holder dies. A file system without such locks is refused when the store is prepared.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import OutputError
from pipelines.store import TMP, Versioned, output_error

_LOCK = ".lock"
_LOCK_WAIT_S = 10.0
_LOCK_POLL_S = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalStore:
    """Files below `root`."""

    root: Path

    @classmethod
    def at(cls, path: str) -> "LocalStore":
        return cls(root=Path(os.path.abspath(Path(path).expanduser())))  # noqa: PTH100 - resolves no links

    @property
    def location(self) -> str:
        return str(self.root)

    def prepare(self, folders: tuple[str, ...]) -> None:
        for folder in (TMP, *folders):
            with _writing("make the folder", self.root / folder):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        with self._locked():
            pass

    def sweep(self) -> None:
        with _writing("clear", self.root / TMP):
            for left in (self.root / TMP).iterdir():
                left.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        with _writing("read", self.root / name):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def open(self, name: str) -> BinaryIO:
        with _writing("read", self.root / name):
            return (self.root / name).open("rb")

    def write(self, name: str, content: bytes) -> None:
        with self.write_with(name) as path, path.open("wb") as file:
            file.write(content)

    @contextmanager
    def write_with(self, name: str) -> Iterator[Path]:
        target = self.root / name
        path = self.root / TMP / f"{target.name}.{secrets.token_hex(8)}"
        with _writing("write", target):
            try:
                yield path
                self._sync(path)
                self._rename(path, target)
                self._sync(target.parent)
            finally:
                path.unlink(missing_ok=True)

    def _sync(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _rename(self, path: Path, target: Path) -> None:
        path.replace(target)

    def delete(self, name: str) -> None:
        with _writing("remove", self.root / name):
            (self.root / name).unlink(missing_ok=True)

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        with _writing("list", self.root / folder):
            try:
                entries = os.scandir(self.root / folder)
            except FileNotFoundError:
                return
            with entries:
                for entry in entries:
                    if entry.is_file():
                        yield entry.name, entry.stat().st_size

    def read_versioned(self, name: str) -> Versioned | None:
        content = self.read(name)
        return None if content is None else Versioned(content=content, version=_version(content))

    def create(self, name: str, content: bytes) -> str | None:
        return self._replace(name, None, content)

    def replace(self, name: str, version: str, content: bytes) -> str | None:
        return self._replace(name, version, content)

    def _replace(self, name: str, version: str | None, content: bytes) -> str | None:
        with self._locked():
            found = self.read_versioned(name)
            if (found.version if found else None) != version:
                return None
            self.write(name, content)
        return _version(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.root / _LOCK
        with _writing("lock", path), path.open("a+b") as file:
            _lock(file)
            yield


def _lock(file: BinaryIO) -> None:
    """Takes the lock; closing the file frees it."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, f"another process has held it for {_LOCK_WAIT_S:.0f} s") from error
            time.sleep(_LOCK_POLL_S)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _writing(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise output_error(action, str(path), error) from error
