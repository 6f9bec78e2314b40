"""The files of this machine that a pattern matches, links followed, none twice.

A pattern is a folder and the segments below it: names, names with `*`, `?` or `[...]`, and `**` for any number of folders. Names that
start with `.` or `_` are matched only by a segment that starts so too; a folder `_name=value` is one of Hive's, and no hidden one.

A folder is entered once, by its inode, first where it really is and only then through links, so a loop of links ends and no file is
found twice. A link to a file counts if the file is not found by itself. Sockets, pipes and devices are passed over.
"""

import errno
import fnmatch
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ANY_DEPTH = "**"
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was found; `status` is None for a link that leads nowhere."""

    path: str
    status: os.stat_result | None
    is_linked: bool

    @property
    def identity(self) -> tuple[int, int] | None:
        return None if self.status is None else (self.status.st_dev, self.status.st_ino)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to enter, with the number of the first segment that is to be matched in it."""

    path: str
    status: os.stat_result
    segment: int
    is_linked: bool


def walk(folder: str, segments: tuple[str, ...]) -> list[Found]:
    """The files below `folder` that the segments match, by path.

    Raises:
        OSError: a folder cannot be read.
    """
    found = sorted(_Walk(segments).files(folder), key=lambda file: file.is_linked)
    return sorted(_once_each(found), key=lambda file: file.path)


def has_magic(text: str) -> bool:
    """Whether a pattern's segment, or a pattern, stands for more than one name."""
    return _MAGIC.search(text) is not None


def is_match(name: str, segment: str) -> bool:
    """Whether a segment of a pattern matches the name of a file or folder."""
    if not has_magic(segment):
        return name == segment
    return not is_hidden(name, segment) and fnmatch.fnmatchcase(name, segment)


def is_hidden(name: str, segment: str = "") -> bool:
    """Whether a name is passed over by wildcards, except for those of a segment that starts as it
    does."""
    if not name.startswith((".", "_")) or segment[:1] == name[:1]:
        return False
    return not (name.startswith("_") and "=" in name)


def _once_each(found: Iterable[Found]) -> Iterator[Found]:
    """Each file at the first place it is found at: real ones come before links."""
    paths: set[str] = set()
    identities: set[tuple[int, int] | None] = set()
    for file in found:
        is_twin = file.is_linked and file.identity is not None and file.identity in identities
        if file.path not in paths and not is_twin:
            paths.add(file.path)
            identities.add(file.identity)
            yield file


@dataclass(slots=True)
class _Walk:
    segments: tuple[str, ...]
    _real: list[_Folder] = field(default_factory=list)
    _links: deque[_Folder] = field(default_factory=deque)
    _entered: set[tuple[int, int, int]] = field(default_factory=set)

    def files(self, folder: str) -> Iterator[Found]:
        self._real.append(_Folder(folder, os.stat(folder), 0, False))  # noqa: PTH116
        while self._real or self._links:
            place = self._real.pop() if self._real else self._links.popleft()
            key = (place.status.st_dev, place.status.st_ino, place.segment)
            if key not in self._entered:
                self._entered.add(key)
                yield from self._enter(place)

    def _enter(self, place: _Folder) -> Iterator[Found]:
        segment, is_last = self.segments[place.segment], place.segment + 1 == len(self.segments)
        if segment == ANY_DEPTH and not is_last:
            self._real.append(_Folder(place.path, place.status, place.segment + 1, place.is_linked))
        for name, is_link in _names(place.path, segment):
            path = os.path.join(place.path, name)  # noqa: PTH118
            is_linked = place.is_linked or is_link
            status = _status(path)
            if status is not None and stat.S_ISDIR(status.st_mode):
                if segment == ANY_DEPTH or not is_last:
                    after = place.segment + (segment != ANY_DEPTH)
                    (self._links if is_link else self._real).append(_Folder(path, status, after, is_linked))
            elif is_last and (status is None or stat.S_ISREG(status.st_mode)):
                yield Found(path, status, is_linked)


def _names(folder: str, segment: str) -> Iterator[tuple[str, bool]]:
    """The names in a folder that a segment matches, in order, and whether each is a link."""
    if not has_magic(segment):
        path = os.path.join(folder, segment)  # noqa: PTH118
        if os.path.lexists(path):
            yield segment, os.path.islink(path)  # noqa: PTH114
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry.name, entry.is_symlink()) for entry in entries)
    yield from (one for one in listed if is_match(one[0], segment))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
