"""A folder as a store: files are written in `tmp/`, synced, and renamed into place; the folder is synced too.

What has to be decided between processes is decided under a lock of the file `.lock` (`flock`, which Linux turns into a lock at the
server on NFS) that the system frees when its holder dies. It is held for a look and a renaming only, and waited for by looking, not by the
clock: a process that stood still for a while has not waited. A file system without such locks is refused when the store is prepared.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import OutputError
from pipelines.io.outputs import TMP, Versioned, output_error

_LOCK = ".lock"
_LOCK_POLLS = 1000
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
        with self._new_file(name) as path:
            path.write_bytes(content)
            self._sync(path)
            self._rename(path, self.root / name)
            self._sync((self.root / name).parent)

    @contextmanager
    def write_with(self, name: str) -> Iterator[Path]:
        found = self._version_at(self.root / name)
        with self._new_file(name) as path:
            yield path
            if not self._put(path, name, found):
                raise OutputError(f"{self.root / name} was written by another process meanwhile; run again")

    @contextmanager
    def _new_file(self, name: str) -> Iterator[Path]:
        """A path in `tmp/` that is gone at the end, renamed or not."""
        target = self.root / name
        path = self.root / TMP / f"{target.name}.{secrets.token_hex(8)}"
        with _writing("write", target):
            try:
                yield path
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
        for name, found in self._entries(folder):
            yield name, found.st_size if stat.S_ISREG(found.st_mode) else -1

    def times(self, folder: str) -> dict[str, float]:
        return {name: found.st_mtime for name, found in self._entries(folder)}

    def _entries(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        with _writing("list", self.root / folder):
            try:
                entries = os.scandir(self.root / folder)
            except FileNotFoundError:
                return
            with entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # removed a moment ago
                        yield entry.name, Path(entry.path).stat()

    def read_versioned(self, name: str) -> Versioned | None:
        content = self.read(name)
        return None if content is None else Versioned(content=content, version=_version(content))

    def create(self, name: str, content: bytes) -> str | None:
        return self._replace(name, None, content)

    def replace(self, name: str, version: str, content: bytes) -> str | None:
        return self._replace(name, version, content)

    def _replace(self, name: str, version: str | None, content: bytes) -> str | None:
        with self._new_file(name) as path:
            path.write_bytes(content)
            return _version(content) if self._put(path, name, version) else None

    def _put(self, path: Path, name: str, version: str | None) -> bool:
        """Renames a new file into the place of one version, or of none; whether the file is the new one now, or was already."""
        target, new = self.root / name, self._version_at(path)
        self._sync(path)
        with self._locked():
            if self._version_at(target) not in (version, new):
                return False
            self._rename(path, target)
        self._sync(target.parent)
        return True

    def _version_at(self, path: Path) -> str | None:
        with _writing("read", path):
            try:
                with path.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.root / _LOCK
        with _writing("lock", path), path.open("a+b") as file:
            _lock(file)
            yield


def _lock(file: BinaryIO) -> None:
    """Takes the lock; closing the file frees it."""
    for _ in range(_LOCK_POLLS):
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_POLL_S)
    raise OSError(errno.EBUSY, f"another process has held it for {_LOCK_POLLS * _LOCK_POLL_S:.0f} s")


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
