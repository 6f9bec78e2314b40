"""Which files a job reads: patterns, folders and files, in a stable order, each with its format, size and tag.

Usage: `list_sources(job.input) -> tuple[SourceFile, ...]`. The order is that of `input.paths`, and by name within one of them; a
file that several of them match counts once. In folders (searched to the bottom) names that start with `.` or `_` are passed over,
and so are files whose ending tells no format.

`relative_path` is relative to the input root: the deepest folder that holds everything the patterns can match, so the same corpus
somewhere else has the same relative paths (seeds derive from them).
"""

import glob
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import PlanError, SourceError
from pipelines.job import InputSpec
from pipelines.storage import FileStat, Storage, compression_of, describe, file_stat, is_remote, with_retries
from pipelines.units import Format

logger = logging.getLogger(__name__)

_FORMATS: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
}
_MAGIC = re.compile(r"[*?\[]")
_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file of the input, as it was when it was listed."""

    path: str
    relative_path: str
    format: Format
    size: int
    tag: str

    @property
    def is_cuttable(self) -> bool:
        """Whether the file can be read from a place in its middle: all but compressed text can."""
        return self.format == "parquet" or compression_of(self.path) is None

    @property
    def always_has_bytes(self) -> bool:
        """Whether even a file without rows cannot be empty: Parquet and compressed text have a frame."""
        return self.format == "parquet" or compression_of(self.path) is not None


@dataclass(frozen=True, slots=True)
class _Match:
    """A file, its place without the scheme of a URL, and whether a folder held it rather than the spec naming it."""

    path: str
    place: str
    stat: FileStat
    is_from_folder: bool


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one of `input.paths` matches, and the deepest folder that holds everything it can match."""

    root: str
    matches: list[_Match]


def list_sources(spec: InputSpec) -> tuple[SourceFile, ...]:
    """Finds the input's files.

    Raises:
        PlanError: a pattern matches nothing, a format is unknown or mixed, or a place cannot be listed.
    """
    storage = Storage(spec.storage_options)
    listings = [_list(_absolute(path), storage) for path in spec.paths]
    root = _common_root([listing.root for listing in listings])
    sources: dict[str, SourceFile] = {}
    for given, listing in zip(spec.paths, listings, strict=True):
        found = [file for match in listing.matches if (file := _source(match, root, spec.format)) is not None]
        if not found:
            raise PlanError(
                f"input path {given!r} matches no {spec.format or 'Parquet, JSONL or CSV'} file; "
                "give a file, a folder or a pattern such as 'in/*.parquet'"
            )
        for source in found:
            sources.setdefault(source.path, source)
    files = tuple(sources.values())
    _check_one_format(files)
    return files


def _absolute(path: str) -> str:
    if _CREDENTIALS.search(path):
        raise PlanError("an input path holds a user name and password; give them in input.storage_options instead")
    path = path.removeprefix("file://")
    return path if is_remote(path) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolves no links


def _list(pattern: str, storage: Storage) -> _Listing:
    try:
        listing = with_retries(lambda: _list_remote(pattern, storage) if is_remote(pattern) else _list_local(pattern))
    except SourceError as error:
        raise PlanError(f"the input cannot be listed: {error}") from error
    listing.matches.sort(key=lambda match: match.path)
    return listing


def _list_local(pattern: str) -> _Listing:
    storage = Storage()
    if os.path.isdir(pattern):  # noqa: PTH112
        return _Listing(pattern, [_Match(path, path, storage.stat(path), True) for path in _walk(pattern)])
    if os.path.exists(pattern):  # noqa: PTH110
        return _Listing(posixpath.dirname(pattern), [_Match(pattern, pattern, storage.stat(pattern), False)])
    found = [path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path)]  # noqa: PTH113, PTH207
    return _Listing(_fixed_folder(pattern), [_Match(path, path, storage.stat(path), False) for path in found])


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (os.path.join(parent, name) for name in names if not _is_hidden(name))  # noqa: PTH118


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _list_remote(pattern: str, storage: Storage) -> _Listing:
    file_system, key = storage.resolve(pattern)
    try:
        file_system.invalidate_cache()
        return _list_in(file_system, key.rstrip("/"))
    except Exception as error:  # every fsspec back end has an error tree of its own
        raise SourceError(f"cannot list {pattern}: {describe(error)}") from error


def _list_in(file_system: Any, key: str) -> _Listing:
    def matches(found: Mapping[str, Mapping[str, Any]], is_from_folder: bool) -> list[_Match]:
        files = {place: details for place, details in found.items() if details.get("type") == "file"}
        return [
            _Match(str(file_system.unstrip_protocol(place)), place, file_stat(details), is_from_folder)
            for place, details in files.items()
        ]

    if file_system.isdir(key):
        found = file_system.find(key, detail=True)
        shown = {at: info for at, info in found.items() if not any(map(_is_hidden, at[len(key) :].split("/")))}
        return _Listing(key, matches(shown, True))
    if file_system.exists(key):
        return _Listing(posixpath.dirname(key), matches({key: file_system.info(key)}, False))
    found = file_system.glob(key, detail=True) if _MAGIC.search(key) else {}
    return _Listing(_fixed_folder(key), matches(found, False))


def _fixed_folder(pattern: str) -> str:
    """The folders of a pattern that come before its first wildcard."""
    magic = _MAGIC.search(pattern)
    return posixpath.dirname(pattern[: magic.start()] if magic else pattern)


def _common_root(roots: list[str]) -> str:
    is_mixed = len({root.startswith("/") for root in roots}) > 1
    return "" if is_mixed else posixpath.commonpath(roots)


def _source(match: _Match, root: str, given: Format | None) -> SourceFile | None:
    """The file with its format; None for one of a folder's files that is none of ours."""
    path = match.path
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise PlanError(f"the name of input file {path!r} is not valid UTF-8; rename it") from error
    told = _format_of(path)
    if match.is_from_folder and not _is_wanted(path, told, given):
        logger.info("passed over %s: its ending is not that of %s", path, given or "a known format")
        return None
    format = given or told
    if format is None:
        raise PlanError(
            f"the format of input file {path} is not known from its ending; set input.format to parquet, jsonl or csv "
            f"(endings known: {', '.join(_FORMATS)}, the text ones also with .gz or .zst)"
        )
    relative = posixpath.relpath(match.place, root) if root else match.place.lstrip("/")
    return SourceFile(path=path, relative_path=relative, format=format, size=match.stat.size, tag=match.stat.tag)


def _is_wanted(path: str, told: Format | None, given: Format | None) -> bool:
    """Whether a folder's file belongs to the input: by its ending, or for want of any ending where the format was given."""
    if told is None:
        return given is not None and not posixpath.splitext(path)[1]
    return given in (None, told)


def _format_of(path: str) -> Format | None:
    stem, ending = posixpath.splitext(path.lower())
    if compression_of(path) is None:
        return _FORMATS.get(ending)
    inner = _FORMATS.get(posixpath.splitext(stem)[1])
    return None if inner == "parquet" else inner


def _check_one_format(files: tuple[SourceFile, ...]) -> None:
    for file in files:
        if file.format != files[0].format:
            raise PlanError(
                f"the input mixes formats: {files[0].path} is {files[0].format}, {file.path} is {file.format}; "
                "give each format a job of its own"
            )
