"""Whether a run would read what it writes: its output inside its input, or matched by a pattern of it; and which path reads a file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from models.checkpoint.url_secrets import redacted
from pipelines.errors import PlanError
from pipelines.io.inputs import is_remote
from pipelines.io.walking import ANY_DEPTH, has_magic, is_match
from pipelines.job import InputSpec, OutputSpec

# What an output folder holds, one name of a kind.
_WRITTEN = (
    *(
        "run.json",
        "lease.json",
        "units.parquet",
        "report.json",
        "data/part-00000000.parquet",
        "data/part-00000000.jsonl",
    ),
    *("errors/part-00000000.jsonl", "errors/units.jsonl", "receipts/part-00000000.json"),
)


def check_apart(input: InputSpec, output: OutputSpec) -> None:
    """Compares places only; nothing has to be there yet.

    Raises:
        PlanError: the output lies in a folder that is input, or files of it would match a pattern that is.
    """
    folder = _normalized(output.path)
    for given in input.paths:
        path = _normalized(given)
        if _is_within(folder, path) or any(_is_read(f"{folder}/{name}", path) for name in _WRITTEN):
            raise PlanError(
                f"output.path {output.path} lies within the input: {redacted(given)!r} would read what this run writes; "
                "give the output a folder that no input path covers",
                place="output.path",
            )


def entry_of(path: str, entries: Sequence[str]) -> int | None:
    """The number of the first of `input.paths` that is `path`, or that reads the file at it; None if none does."""
    if path in entries:
        return entries.index(path)
    return next((number for number, entry in enumerate(entries) if _is_read(path, entry.rstrip("/"))), None)


def _normalized(path: str) -> str:
    """An absolute path without links or a URL, without a slash at its end; a pattern keeps its wildcards."""
    path = path.removeprefix("file://")
    if is_remote(path):
        return re.sub(r"^s3a://", "s3://", path).rstrip("/")
    return os.path.realpath(Path(path).expanduser())


def _is_within(place: str, folder: str) -> bool:
    return place == folder or place.startswith(f"{folder.rstrip('/')}/")


def _is_read(file: str, path: str) -> bool:
    """Whether a file would be read through one of `input.paths`: as it, from it as a folder, or by its pattern."""
    if not has_magic(path):
        return _is_within(file, path)
    return _matches(file.split("/"), path.split("/"))


def _matches(names: list[str], segments: list[str]) -> bool:
    """Whether a path's names match a pattern's segments as `pipelines.io.walking` has it: `**` at the end wants a name, before it none."""
    if not segments or not names:
        return not segments and not names
    segment, rest = segments[0], segments[1:]
    if segment != ANY_DEPTH:
        return is_match(names[0], segment) and _matches(names[1:], rest)
    if rest and _matches(names, rest):
        return True
    return is_match(names[0], segment) and (_matches(names[1:], segments) or not (rest or names[1:]))
