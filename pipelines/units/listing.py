"""Which files a job reads: patterns, folders and files, in a stable order, each with its format, size and tag.

Usage: `find_sources(job.input) -> Sources`, or `list_sources(job.input)` for the files alone. The order
is that of `input.paths`, and by name within one of them; a file that several of them match, or reach
through links, counts once. In a folder, which is searched to the bottom, and of what `**` or `**/*`
at a pattern's end matches, files whose ending tells no format are passed over too, and counted: a folder
and its `**` are the same files. Where a file of a folder says which of the others are input, such as
`state.json` of a saved dataset, the matches in that folder are those, in its order.

`relative_path` is relative to the input root: the deepest folder that holds everything the patterns can match, so the same corpus
somewhere else has the same relative paths (seeds derive from them).
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from models.checkpoint.url_secrets import redacted
from pipelines.errors import PlanError, SourceError
from pipelines.input_formats.table import (
    FORMATS,
    format_by_ending,
    format_names,
    format_titles,
    has_ending,
    known_endings,
)
from pipelines.io.inputs import Storage, with_retries
from pipelines.job import InputSpec
from pipelines.units.matching import Match, list_matches

_EXAMPLES = 3


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


def find_sources(spec: InputSpec) -> Sources:
    """Finds the input's files.

    Raises:
        PlanError: a pattern matches nothing, a format is unknown or mixed, or a place cannot be listed.
    """
    storage = Storage.of(spec)
    listings = [list_matches(path, storage) for path in spec.paths]
    root = _common_root([listing.root for listing in listings])
    taken: dict[str, Match] = {}
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


def _in_order(matches: Sequence[Match], given: str | None, storage: Storage) -> list[Match]:
    """The matches; those of a folder one of whose files says which of them are input are these alone, in the order that it says."""
    folders: dict[str, dict[str, Match]] = {}
    for match in matches:
        folder, name = posixpath.split(match.path)
        folders.setdefault(folder, {})[name] = match
    chosen = {folder: _chosen(folder, inside, given, storage) for folder, inside in folders.items()}
    ordered: list[Match] = []
    for match in matches:
        folder = posixpath.dirname(match.path)
        names = chosen[folder]
        if names is None:
            ordered.append(match)
        else:
            ordered += [folders[folder][name] for name in names]
            chosen[folder] = ()
    return ordered


def _chosen(folder: str, inside: Mapping[str, Match], given: str | None, storage: Storage) -> Sequence[str] | None:
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


def _sifted(matches: Iterable[Match], given: str | None) -> tuple[list[Match], list[Match]]:
    """The matches that belong to the input, and those of folders that do not."""
    wanted: list[Match] = []
    others: list[Match] = []
    for match in matches:
        is_wanted = not match.is_from_folder or _is_wanted(match.path, given)
        (wanted if is_wanted else others).append(match)
    return wanted, others


def _without_twins(matches: Iterable[Match]) -> list[Match]:
    """The matches, except for a file that several paths of the spec reach, one of them through a
    link: the first counts."""
    kept: list[Match] = []
    known: dict[tuple[int, int], bool] = {}
    for match in matches:
        if match.identity is not None:
            if match.identity in known and (match.is_linked or known[match.identity]):
                continue
            known.setdefault(match.identity, match.is_linked)
        kept.append(match)
    return kept


def _common_root(roots: list[str]) -> str:
    is_mixed = len({root.startswith("/") for root in roots}) > 1
    return "" if is_mixed else posixpath.commonpath(roots)


def _relative(match: Match, root: str) -> str:
    return posixpath.relpath(match.place, root) if root else match.place.lstrip("/")


def _source(match: Match, root: str, given: str | None) -> SourceFile:
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
