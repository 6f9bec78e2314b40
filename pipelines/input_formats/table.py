"""The input formats there are: a new one is a file of this room, and a line here."""

import posixpath
from typing import Final

from pipelines.input_formats.arrow_format import ARROW
from pipelines.input_formats.batch_format import BATCH
from pipelines.input_formats.csv_format import CSV
from pipelines.input_formats.input_format import InputFormat
from pipelines.input_formats.jsonl_format import JSONL
from pipelines.input_formats.parquet_format import PARQUET
from pipelines.io.inputs import compression_of

FORMATS: Final[dict[str, InputFormat]] = {
    "parquet": PARQUET,
    "arrow": ARROW,
    "jsonl": JSONL,
    "csv": CSV,
    "openai-batch": BATCH,
}


def format_names() -> str:
    """What `input.format` may be, for people."""
    return _one_of(list(FORMATS))


def format_titles() -> str:
    """What the formats are called, for people."""
    return _one_of([format.title for format in FORMATS.values()])


def _one_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def known_endings() -> str:
    """The endings that tell a format, for people."""
    return ", ".join(ending for format in FORMATS.values() for ending in format.endings)


def format_by_ending(path: str) -> InputFormat | None:
    """The format that a file's name tells, None if it tells none."""
    return next((format for format in FORMATS.values() if has_ending(format, path)), None)


def has_ending(format: InputFormat, path: str) -> bool:
    """Whether a file's name is one of the format's."""
    stem, ending = posixpath.splitext(path.lower())
    if compression_of(path) is not None:
        return format.is_compressible and posixpath.splitext(stem)[1] in format.endings
    return ending in format.endings
