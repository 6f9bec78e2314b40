"""Which files a job reads: patterns, folders and files, in a stable order, each with its format, size and tag.

Usage: `find_sources(job.input) -> Sources`, or `list_sources(job.input)` for the files alone. The order
is that of `input.paths`, and by name within one of them; a file that several of them match, or reach
through links, counts once. Names that start with `.` or `_` are passed over, unless a pattern names
them; see `pipelines.io.walking`. In a folder, which is searched to the bottom, and of what `**` or `**/*`
at a pattern's end matches, files whose ending tells no format are passed over too, and counted: a folder
and its `**` are the same files. Where a file of a folder says which of the others are input, such as
`state.json` of a saved dataset, the matches in that folder are those, in its order.

`relative_path` is relative to the input root: the deepest folder that holds everything the patterns can match, so the same corpus
somewhere else has the same relative paths (seeds derive from them).
"""

import logging
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoint.url_secrets import public_url, redacted
from pipelines.errors import PlanError, SourceError
from pipelines.input_formats.table import (
    FORMATS,
    format_by_ending,
    format_names,
    format_titles,
    has_ending,
    known_endings,
)
from pipelines.io.inputs import (
    FileStat,
    Storage,
    describe,
    file_stat,
    is_remote,
    local_stat,
    reading,
    with_retries,
)
from pipelines.io.walking import ANY_DEPTH, Found, has_magic, is_hidden, walk
from pipelines.job import InputSpec
from pipelines.units.lake_tables import DELTA_LOG, refuse_tables

logger = logging.getLogger(__name__)

_EXAMPLES = 3
_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@|^https?://[^/?#@]*@", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file of the input, as it was when it was listed; `digest` is that of its content, once `pipelines.units.digest` has made it."""

    path: str
    relative_path: str
    format: str
    size: int
    tag: str
    digest: str = ""

    @property
    def is_cuttable(self) -> bool:
        """Whether the file can be read from a place in its middle."""
        return FORMATS[self.format].is_cuttable(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class PassedOver:
    """How many files were passed over for their endings, and the names of a few."""

    num_files: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        files = "1 file" if self.num_files == 1 else f"{self.num_files:,} files"
        more = ", ..." if self.num_files > len(self.examples) else ""
        whose = "its ending" if self.num_files == 1 else "their endings"
        return f"{files} passed over for {whose} ({', '.join(self.examples)}{more})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """The input's files, and what was beside them."""

    files: tuple[SourceFile, ...]
    passed_over: PassedOver


@dataclass(frozen=True, slots=True)
class _Match:
    """A file, its place without the scheme of a URL, and whether a folder held it rather than the spec naming it.

    `identity` is a local file's inode, and `is_linked` whether links lead to it.
    """

    path: str
    place: str
    stat: FileStat
    is_from_folder: bool
    identity: tuple[int, int] | None = None
    is_linked: bool = False


@dataclass(frozen=True, slots=True)
class _Listing:
    """What one of `input.paths` matches, and the deepest folder that holds everything it can match."""

    root: str
    matches: list[_Match]


def find_sources(spec: InputSpec) -> Sources:
    """Finds the input's files.

    Raises:
        PlanError: a pattern matches nothing, a format is unknown or mixed, or a place cannot be listed.
    """
    storage = Storage.of(spec)
    listings = [_list(path, storage) for path in spec.paths]
    root = _common_root([listing.root for listing in listings])
    taken: dict[str, _Match] = {}
    passed_over: dict[str, None] = {}
    for given, listing in zip(spec.paths, listings, strict=True):
        wanted, others = _sifted(_in_order(listing.matches, spec.format, storage), spec.format)
        passed_over |= dict.fromkeys(_relative(match, root) for match in others)
        if not wanted:
            text = _nothing_found(redacted(given), spec.format, [match.path for match in others])
            raise PlanError(text, path=given)
        for match in wanted:
            taken.setdefault(match.path, match)
    files = tuple(_source(match, root, spec.format) for match in _without_twins(taken.values()))
    _check_one_format(files)
    return Sources(
        files=files, passed_over=PassedOver(num_files=len(passed_over), examples=tuple(passed_over)[:_EXAMPLES])
    )


def list_sources(spec: InputSpec) -> tuple[SourceFile, ...]:
    """The files of `find_sources`."""
    return find_sources(spec).files


def _nothing_found(given: str, format: str | None, passed_over: list[str]) -> str:
    text = f"input path {given!r} matches no {format or format_titles()} file"
    if passed_over:
        text += f", but {len(passed_over):,} with other endings, such as {passed_over[0]}"
    return (
        f"{text}; give a file, a folder or a pattern such as 'in/*.parquet', and input.format where endings do not tell"
    )


def _in_order(matches: Sequence[_Match], given: str | None, storage: Storage) -> list[_Match]:
    """The matches; those of a folder one of whose files says which of them are input are these alone, in the order that it says."""
    folders: dict[str, dict[str, _Match]] = {}
    for match in matches:
        folder, name = posixpath.split(match.path)
        folders.setdefault(folder, {})[name] = match
    chosen = {folder: _chosen(folder, inside, given, storage) for folder, inside in folders.items()}
    ordered: list[_Match] = []
    for match in matches:
        folder = posixpath.dirname(match.path)
        names = chosen[folder]
        if names is None:
            ordered.append(match)
        else:
            ordered += [folders[folder][name] for name in names]
            chosen[folder] = ()
    return ordered


def _chosen(folder: str, inside: Mapping[str, _Match], given: str | None, storage: Storage) -> Sequence[str] | None:
    """The names of the files of a folder that are input, in order, if a file of it says so."""

    def read(name: str) -> bytes:
        found = inside[name]
        return with_retries(lambda: storage.read(found.path, 0, found.stat.size))

    formats = FORMATS.values() if given is None else (FORMATS[given],)
    try:
        found = (format.files_of(folder, tuple(inside), read) for format in formats)
        return next((names for names in found if names is not None), None)
    except SourceError as error:
        raise PlanError(f"the input cannot be listed: {error}") from error


def _sifted(matches: Iterable[_Match], given: str | None) -> tuple[list[_Match], list[_Match]]:
    """The matches that belong to the input, and those of folders that do not."""
    wanted: list[_Match] = []
    others: list[_Match] = []
    for match in matches:
        is_wanted = not match.is_from_folder or _is_wanted(match.path, given)
        (wanted if is_wanted else others).append(match)
    return wanted, others


def _without_twins(matches: Iterable[_Match]) -> list[_Match]:
    """The matches, but for a file that several paths of the spec reach, one of them through a link: the first counts."""
    kept: list[_Match] = []
    known: dict[tuple[int, int], bool] = {}
    for match in matches:
        if match.identity is not None:
            if match.identity in known and (match.is_linked or known[match.identity]):
                continue
            known.setdefault(match.identity, match.is_linked)
        kept.append(match)
    return kept


def _absolute(path: str) -> str:
    if _CREDENTIALS.search(path):
        text = "an input path holds a user name and password; give them in input.storage_options instead"
        raise PlanError(text, path=path)
    path = path.removeprefix("file://")
    return public_url(path) if is_remote(path) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolves no links


def _list(given: str, storage: Storage) -> _Listing:
    pattern = _absolute(given)
    try:
        listing = with_retries(lambda: _list_remote(pattern, storage) if is_remote(pattern) else _list_local(pattern))
    except SourceError as error:
        raise PlanError(f"the input cannot be listed: {error}", path=given) from error
    listing.matches.sort(key=lambda match: match.path)
    return listing


def _list_local(pattern: str) -> _Listing:
    with reading(pattern):
        if os.path.isdir(pattern):  # noqa: PTH112
            return _walked(pattern, (ANY_DEPTH,))
        if os.path.lexists(pattern):
            return _Listing(posixpath.dirname(pattern), [_named(pattern)])
        folder = _fixed_folder(pattern)
        if not has_magic(pattern) or not os.path.isdir(folder):  # noqa: PTH112
            return _Listing(folder, [])
        return _walked(folder, tuple(pattern[len(folder.rstrip("/")) + 1 :].split("/")))


def _walked(folder: str, segments: tuple[str, ...]) -> _Listing:
    is_link = os.path.realpath(folder) != folder
    is_from_folder = _is_whole_folder(segments)
    found = [
        file for file in walk(folder, segments) if file.status is not None or format_by_ending(file.path) is not None
    ]
    refuse_tables((file.path for file in found), os.path.isdir)
    return _Listing(folder, [_match(file, is_from_folder, is_link) for file in found])


def _is_whole_folder(segments: tuple[str, ...]) -> bool:
    """Whether a pattern ends as a folder is searched: with `**`, or `**/*`."""
    return segments[-1] == ANY_DEPTH or segments[-2:] == (ANY_DEPTH, "*")


def _match(found: Found, is_from_folder: bool, is_link: bool) -> _Match:
    if found.status is None:
        text = f"input file {found.path} is a link to nothing; remove it, or bring back what it led to"
        raise PlanError(text, path=found.path)
    return _Match(
        found.path, found.path, local_stat(found.status), is_from_folder, found.identity, is_link or found.is_linked
    )


def _named(path: str) -> _Match:
    """A file that the spec names."""
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise PlanError(
            f"input path {path} is no regular file: a pipe, a socket or a device has no place to read again from",
            path=path,
        )
    return _match(Found(path, status, os.path.realpath(path) != path), is_from_folder=False, is_link=False)


def _list_remote(pattern: str, storage: Storage) -> _Listing:
    file_system, key = storage.resolve(pattern)
    try:
        file_system.invalidate_cache()
        return _list_in(file_system, key.rstrip("/"))
    except PlanError:
        raise
    except Exception as error:  # every fsspec back end has an error tree of its own
        raise SourceError(f"cannot list {pattern}: {describe(error)}") from error


def _list_in(file_system: Any, key: str) -> _Listing:
    def matches(found: Mapping[str, Mapping[str, Any]], is_from_folder: bool) -> list[_Match]:
        files = {place: details for place, details in found.items() if details.get("type") == "file"}
        return [
            _Match(
                public_url(str(file_system.unstrip_protocol(place))),
                public_url(place),
                file_stat(details),
                is_from_folder,
            )
            for place, details in files.items()
        ]

    if file_system.isdir(key):
        found = file_system.find(key, detail=True)
        logs = {place.rpartition("/")[0] for place in found if f"/{DELTA_LOG}/" in place}
        refuse_tables(
            found, lambda place: place in logs if place.startswith(f"{key}/") else _has_folder(file_system, place)
        )
        return _Listing(key, matches(_shown(found, key, (ANY_DEPTH,)), True))
    if file_system.exists(key):
        return _Listing(posixpath.dirname(key), matches({key: file_system.info(key)}, False))
    folder = _fixed_folder(key)
    segments = tuple(key[len(folder) :].strip("/").split("/"))
    found = file_system.glob(key, detail=True) if has_magic(key) else {}
    refuse_tables(found, partial(_has_folder, file_system))
    return _Listing(folder, matches(_shown(found, folder, segments), _is_whole_folder(segments)))


def _has_folder(file_system: Any, place: str) -> bool:
    """Whether there is such a folder; one that we may not look into counts as none: it may lie outside of what was given."""
    try:
        return bool(file_system.isdir(place))
    except Exception:  # every fsspec back end has an error tree of its own
        logger.debug("cannot look for %s", place, exc_info=True)
        return False


def _shown(found: Mapping[str, Any], folder: str, segments: tuple[str, ...]) -> dict[str, Any]:
    """What was found below a folder, but for hidden names that no segment of the pattern allows for."""
    allowed = "".join(segment[:1] for segment in segments)
    return {
        place: details
        for place, details in found.items()
        if not any(is_hidden(name) and name[0] not in allowed for name in place[len(folder) :].split("/") if name)
    }


def _fixed_folder(pattern: str) -> str:
    """The folders of a pattern that come before its first wildcard."""
    segments = pattern.split("/")
    first = next((number for number, segment in enumerate(segments) if has_magic(segment)), len(segments) - 1)
    return "/".join(segments[:first]) or ("/" if pattern.startswith("/") else "")


def _common_root(roots: list[str]) -> str:
    is_mixed = len({root.startswith("/") for root in roots}) > 1
    return "" if is_mixed else posixpath.commonpath(roots)


def _relative(match: _Match, root: str) -> str:
    return posixpath.relpath(match.place, root) if root else match.place.lstrip("/")


def _source(match: _Match, root: str, given: str | None) -> SourceFile:
    """The file with its format."""
    path = match.path
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise PlanError(f"the name of input file {path!r} is not valid UTF-8; rename it", path=path) from error
    format = format_by_ending(path) if given is None else FORMATS[given]
    if format is None:
        raise PlanError(
            f"the format of input file {path} is not known from its ending; set input.format to {format_names()} "
            f"(endings known: {known_endings()}, the text ones also with .gz or .zst)",
            path=path,
        )
    return SourceFile(
        path=path, relative_path=_relative(match, root), format=format.name, size=match.stat.size, tag=match.stat.tag
    )


def _is_wanted(path: str, given: str | None) -> bool:
    """Whether a folder's file belongs to the input: by its ending, or for want of any ending where the format was given."""
    if given is None:
        return format_by_ending(path) is not None
    return has_ending(FORMATS[given], path) or not posixpath.splitext(path)[1]


def _check_one_format(files: tuple[SourceFile, ...]) -> None:
    for file in files:
        if file.format != files[0].format:
            raise PlanError(
                f"the input mixes formats: {files[0].path} is {files[0].format}, {file.path} is {file.format}; "
                "give each format a job of its own, with input.format where a folder holds several",
                path=file.path,
            )
