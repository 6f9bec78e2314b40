"""The dead letters of a committed unit, as its receipt names them.

for letter in letters_of(store, receipt): letter.row, letter.kind, letter.attempts, letter.line
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import DamageError, RowError
from pipelines.formats.json_line import parse_line
from pipelines.io.outputs import Store
from pipelines.ledger.json_fields import Fields
from pipelines.ledger.receipts import REPAIR, Receipt, committed_content


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A failed row: its number in its file, the kind of its failure, how often it was tried again
    so far, its line as it was written (with the newline), and the values on it."""

    row: int
    kind: str
    attempts: int
    line: bytes
    values: Mapping[str, Any]


def letters_of(store: Store, receipt: Receipt) -> list[DeadLetter]:
    """The dead letters of a unit by row number.

    Raises:
        DamageError: the file is not what was committed.
        OutputError: it cannot be read.
    """
    content = committed_content(store, receipt.errors)
    try:
        letters = sorted(_letters(content), key=lambda letter: letter.row)
        if len({letter.row for letter in letters}) != receipt.num_failed:
            raise ValueError(f"it has {len(letters)} dead letters, its receipt says {receipt.num_failed}")
    except (RowError, ValueError) as error:
        raise DamageError(f"{store.location}/{receipt.errors.name} is damaged: {error}; {REPAIR}") from error
    return letters


def lines_of(content: bytes) -> list[bytes]:
    """The lines of a file, each with its newline. Only newlines end one."""
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _letters(content: bytes) -> Iterator[DeadLetter]:
    for line in lines_of(content):
        values = parse_line(line)
        if not isinstance(values, dict):
            raise ValueError("it has a line that is not a dead letter")
        fields = Fields(values)
        yield DeadLetter(
            row=fields.count("row"),
            kind=fields.text("kind"),
            attempts=fields.count("attempts"),
            line=line,
            values=values,
        )
