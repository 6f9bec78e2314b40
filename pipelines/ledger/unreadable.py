"""`errors/units.jsonl`: the units that could not be read, one per line; the file is there if and
only if there are any."""

from collections.abc import Sequence
from typing import Any

import orjson

from pipelines.errors import DamageError
from pipelines.formats.json_values import dump_json
from pipelines.io.outputs import Store
from pipelines.ledger.json_fields import Fields
from pipelines.ledger.receipts import ERRORS
from pipelines.rows.unit import UnreadableUnit

UNREADABLE = f"{ERRORS}/units.jsonl"


def unreadable_lines(units: Sequence[UnreadableUnit]) -> bytes:
    """The content of the file, in the order of the input."""
    in_order = sorted(units, key=lambda unreadable: unreadable.unit.index)
    return b"".join(dump_json(_line(unit)) + b"\n" for unit in in_order)


def _line(unreadable: UnreadableUnit) -> dict[str, Any]:
    unit = unreadable.unit
    return {
        "unit": unit.index,
        "path": unit.path,
        "first_row": unit.first_row,
        "num_rows": unit.num_rows,
        "message": unreadable.message,
    }


def read_unreadable(store: Store) -> list[dict[str, Any]]:
    """The lines of the file as JSON objects.

    Raises:
        DamageError: they are not what was written.
        OutputError: the file cannot be read.
    """
    try:
        return [_parsed(line) for line in (store.read(UNREADABLE) or b"").splitlines()]
    except ValueError as error:
        raise DamageError(
            f"{store.location}/{UNREADABLE} is damaged: {error}; "
            "`millrace check OUT --repair` removes it, and `millrace run` lists those units again"
        ) from error


def _parsed(line: bytes) -> dict[str, Any]:
    values = orjson.loads(line)
    if not isinstance(values, dict):
        raise ValueError("it has a line that is not a JSON object")
    fields = Fields(values)
    for name in ("unit", "first_row", "num_rows"):
        fields.count(name)
    for name in ("path", "message"):
        fields.text(name)
    return values
