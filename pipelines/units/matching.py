"""What one of `input.paths` matches: a file, a folder or a pattern, on this machine or in a store.

Names that start with `.` or `_` are passed over, unless a pattern names them; see `pipelines.io.walking`. What is wanted of the matches
is `pipelines.units.listing`'s to say.
"""

import logging
import os
import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models.checkpoint.url_secrets import public_url
from pipelines.errors import PlanError, SourceError
from pipelines.input_formats.table import format_by_ending
from pipelines.io.inputs import FileStat, Storage, describe, file_stat, is_remote, local_stat, reading, with_retries
from pipelines.io.walking import ANY_DEPTH, Found, has_magic, is_hidden, walk
from pipelines.units.lake_tables import DELTA_LOG, refuse_tables

logger = logging.getLogger(__name__)

_CREDENTIALS = re.compile(r"://[^/@]*:[^/@]*@|^https?://[^/?#@]*@", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Match:
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
class Matches:
    """What one of `input.paths` matches, and the deepest folder that holds everything it can match."""

    root: str
    matches: list[Match]


def list_matches(given: str, storage: Storage) -> Matches:
    """What one of `input.paths` matches, by path.

    Raises:
        PlanError: it cannot be listed, or matches something that cannot be read twice, such as a
            pipe.
    """
    pattern = _absolute(given)
    try:
        listing = with_retries(lambda: _list_remote(pattern, storage) if is_remote(pattern) else _list_local(pattern))
    except SourceError as error:
        raise PlanError(f"the input cannot be listed: {error}", path=given) from error
    listing.matches.sort(key=lambda match: match.path)
    return listing


def _absolute(path: str) -> str:
    if _CREDENTIALS.search(path):
        text = "an input path holds a user name and password; give them in input.storage_options instead"
        raise PlanError(text, path=path)
    path = path.removeprefix("file://")
    return public_url(path) if is_remote(path) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - resolves no links


def _list_local(pattern: str) -> Matches:
    with reading(pattern):
        if os.path.isdir(pattern):  # noqa: PTH112
            return _walked(pattern, (ANY_DEPTH,))
        if os.path.lexists(pattern):
            return Matches(posixpath.dirname(pattern), [_named(pattern)])
        folder = _fixed_folder(pattern)
        if not has_magic(pattern) or not os.path.isdir(folder):  # noqa: PTH112
            return Matches(folder, [])
        return _walked(folder, tuple(pattern[len(folder.rstrip("/")) + 1 :].split("/")))


def _walked(folder: str, segments: tuple[str, ...]) -> Matches:
    is_link = os.path.realpath(folder) != folder
    is_from_folder = _is_whole_folder(segments)
    found = [
        file for file in walk(folder, segments) if file.status is not None or format_by_ending(file.path) is not None
    ]
    refuse_tables((file.path for file in found), os.path.isdir)
    return Matches(folder, [_match(file, is_from_folder, is_link) for file in found])


def _is_whole_folder(segments: tuple[str, ...]) -> bool:
    """Whether a pattern ends as a folder is searched: with `**`, or `**/*`."""
    return segments[-1] == ANY_DEPTH or segments[-2:] == (ANY_DEPTH, "*")


def _match(found: Found, is_from_folder: bool, is_link: bool) -> Match:
    if found.status is None:
        text = f"input file {found.path} is a link to nothing; remove it, or bring back what it led to"
        raise PlanError(text, path=found.path)
    return Match(
        found.path, found.path, local_stat(found.status), is_from_folder, found.identity, is_link or found.is_linked
    )


def _named(path: str) -> Match:
    """A file that the spec names."""
    status = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(status.st_mode):
        raise PlanError(
            f"input path {path} is no regular file: a pipe, a socket or a device has no place to read again from",
            path=path,
        )
    return _match(Found(path, status, os.path.realpath(path) != path), is_from_folder=False, is_link=False)


def _list_remote(pattern: str, storage: Storage) -> Matches:
    file_system, key = storage.resolve(pattern)
    try:
        file_system.invalidate_cache()
        return _list_in(file_system, key.rstrip("/"))
    except PlanError:
        raise
    except Exception as error:  # every fsspec back end has an error tree of its own
        raise SourceError(f"cannot list {pattern}: {describe(error)}") from error


def _list_in(file_system: Any, key: str) -> Matches:
    def matches(found: Mapping[str, Mapping[str, Any]], is_from_folder: bool) -> list[Match]:
        files = {place: details for place, details in found.items() if details.get("type") == "file"}
        return [
            Match(
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
        return Matches(key, matches(_without_hidden(found, key, (ANY_DEPTH,)), True))
    if file_system.exists(key):
        return Matches(posixpath.dirname(key), matches({key: file_system.info(key)}, False))
    folder = _fixed_folder(key)
    segments = tuple(key[len(folder) :].strip("/").split("/"))
    found = file_system.glob(key, detail=True) if has_magic(key) else {}
    refuse_tables(found, partial(_has_folder, file_system))
    return Matches(folder, matches(_without_hidden(found, folder, segments), _is_whole_folder(segments)))


def _has_folder(file_system: Any, place: str) -> bool:
    """Whether there is such a folder; one that we may not look into counts as none: it may lie outside of what was given."""
    try:
        return bool(file_system.isdir(place))
    except Exception:  # every fsspec back end has an error tree of its own
        logger.debug("cannot look for %s", place, exc_info=True)
        return False


def _without_hidden(found: Mapping[str, Any], folder: str, segments: tuple[str, ...]) -> dict[str, Any]:
    """What was found below a folder, except for hidden names that no segment of the pattern allows
    for."""
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
