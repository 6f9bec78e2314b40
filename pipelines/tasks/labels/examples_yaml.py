"""How specs write labelled examples: in place, or as a file of JSON lines that is read with the spec.

What they say is part of the job, and of its record: the file is not needed once the run has begun.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

LABEL: Final = "label"
MAX_EXAMPLES: Final = 1000
MAX_FILE_BYTES: Final = 4 << 20

Example = Mapping[str, str]


def read_examples(path: str) -> list[Example]:
    """The examples of a file, one a line.

    Raises:
        ValueError: it cannot be read, is too large, or a line is no JSON object of texts.
    """
    file = Path(path).expanduser()
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        what = f"was {path!r}, which cannot be read: {error.strerror}"
        raise ValueError(f"{what}; give a file of JSON lines, or a list of examples") from error
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"was {path!r}, which has more than {MAX_FILE_BYTES >> 20} MB; give a smaller file")
    lines = enumerate(content.splitlines(), start=1)
    return [_example(path, number, line) for number, line in lines if line.strip()]


def fault_of(examples: Sequence[Example], labels: Sequence[str], needs_text: bool) -> tuple[int | None, str] | None:
    """What is wrong with examples, and with which of them (None: with their number)."""
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        return None, f"has {len(examples)} examples; there may be 1 to {MAX_EXAMPLES}"
    for number, example in enumerate(examples):
        if LABEL not in example:
            return number, f"has no key {LABEL}; an example is such as {{text: ..., label: ...}}"
        if example[LABEL] not in labels:
            return number, f"has the label {example[LABEL]!r}, which is none of task.labels"
        if needs_text and (not example.get("text") or example.keys() != {"text", LABEL}):
            return number, f"has the keys {', '.join(example)}; the built-in prompt takes text and {LABEL}"
    return None


def _example(path: str, number: int, line: bytes) -> Example:
    try:
        found: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"line {number} of {path} is no JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f'line {number} of {path} is no JSON object of texts, such as {{"text": ..., "label": ...}}')
    return found
