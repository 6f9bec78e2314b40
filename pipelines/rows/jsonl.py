"""A unit of JSON lines: the rows that can be read, and why the others cannot.

A line's fate does not depend on the unit it is in. A column that `input.schema` declares as string takes any JSON value, as its JSON
text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.fit_json import MISSING, fit_column
from pipelines.formats.json_line import parse_object
from pipelines.rows.line_rows import LineRows


@dataclass(frozen=True, kw_only=True, slots=True)
class LinesRead:
    """The good rows with their positions among the lines, and the errors of the others by position."""

    rows: LineRows
    positions: list[int]
    failures: Mapping[int, RowError]


def read_jsonl(lines: Sequence[bytes], schema: pa.Schema, declared: frozenset[str]) -> LinesRead:
    """Parses lines that are not blank; the columns of `schema` in `declared` have to fit their types."""
    parsed, failures = _parsed(lines)
    arrays, fields = [], [field for field in schema if field.name in declared]
    for field in fields:
        values = [row.get(field.name, MISSING) for row in parsed.values()]
        fitted = fit_column(values, field, takes_any=True)
        arrays.append(fitted.array)
        positions = list(parsed)
        failures = {positions[row]: error for row, error in fitted.misfits.items()} | failures
    good = [position for position in parsed if position not in failures]
    typed = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
    if len(good) < len(parsed) and fields:
        kept = [row for row, position in enumerate(parsed) if position not in failures]
        typed = typed.take(pa.array(kept, pa.int64()))
    rows = LineRows(lines=tuple(lines[position] for position in good), schema=schema, declared=typed)
    return LinesRead(rows=rows, positions=good, failures=failures)


def _parsed(lines: Sequence[bytes]) -> tuple[dict[int, dict[str, Any]], dict[int, RowError]]:
    """The objects on the lines, and the errors of lines without, by position."""
    rows: dict[int, dict[str, Any]] = {}
    failures: dict[int, RowError] = {}
    for position, line in enumerate(lines):
        try:
            rows[position] = parse_object(line)
        except RowError as error:
            failures[position] = error
    return rows, failures
