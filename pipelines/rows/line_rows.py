"""Rows of a unit as the lines of JSON that they came on.

Whatever reads a row parses its line, so that a row is what `json.loads` makes of it, whichever other rows the corpus has. Columns
that `input.schema` declares are the exception: they have been made Arrow values when the unit was read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.fit_json import MISSING, fit_column
from pipelines.formats.json_line import parse_row
from pipelines.formats.json_values import JsonText, json_rows
from pipelines.rows.rows import ArrowColumns, BoolArray, JsonRow
from pipelines.rows.values import column_values, kept_rows, row_or_error


@dataclass(frozen=True, kw_only=True, slots=True)
class LineRows:
    """Implements `pipelines.rows.rows.Rows` over lines that hold one JSON object each.

    `schema` is the run's, `declared` has the values of the columns whose types `input.schema` gives, if any. `columns` are those that
    go to the output (None: all).
    """

    lines: tuple[bytes, ...]
    schema: pa.Schema
    declared: pa.Table
    columns: tuple[str, ...] | None = None

    @property
    def num_rows(self) -> int:
        return len(self.lines)

    def kept(self, keep: BoolArray) -> "LineRows":
        lines = tuple(self.lines[row] for row in np.flatnonzero(keep).tolist())
        declared = kept_rows(self.declared, keep) if self.declared.num_columns else self.declared
        return replace(self, lines=lines, declared=declared)

    def carried(self, columns: tuple[str, ...] | None) -> "LineRows":
        return self if columns is None else replace(self, columns=columns)

    def values(self, columns: frozenset[str] | None) -> list[Mapping[str, Any] | RowError]:
        is_read = [name for name in self.declared.column_names if columns is None or name in columns]
        typed = {name: column_values(self.declared.column(name), name) for name in is_read}
        return [self._row(row, line, columns, typed) for row, line in enumerate(self.lines)]

    @staticmethod
    def _row(
        row: int, line: bytes, columns: frozenset[str] | None, typed: Mapping[str, list[Any]]
    ) -> Mapping[str, Any] | RowError:
        given = parse_row(line)[0]
        return row_or_error(
            {
                name: typed[name][row] if name in typed else value
                for name, value in given.items()
                if columns is None or name in columns
            }
        )

    def as_json(self) -> list[dict[str, Any]]:
        typed = json_rows(self.declared) if self.declared.num_columns else [{}] * self.num_rows
        return [self._json_row(line, known) for line, known in zip(self.lines, typed, strict=True)]

    def _json_row(self, line: bytes, typed: Mapping[str, Any]) -> dict[str, Any]:
        given, is_plain = parse_row(line)
        names = given if self.columns is None else [name for name in self.columns if name in given]
        return {
            name: typed[name] if name in typed else given[name] if is_plain else JsonText(_dumped(given[name]))
            for name in names
        }

    def as_given(self) -> list[JsonRow]:
        return [JsonText(line.strip()) for line in self.lines]

    def as_arrow(self) -> ArrowColumns:
        rows = [parse_row(line)[0] for line in self.lines]
        fields = [*self.schema] if self.columns is None else [self.schema.field(name) for name in self.columns]
        misfits: dict[int, RowError] = {}
        arrays: list[Any] = []
        for field in fields:
            if field.name in self.declared.column_names:
                arrays.append(self.declared.column(field.name))
                continue
            fitted = fit_column([row.get(field.name, MISSING) for row in rows], field)
            arrays.append(fitted.array)
            misfits = fitted.misfits | misfits
        return ArrowColumns(table=pa.Table.from_arrays(arrays, schema=pa.schema(fields)), misfits=misfits)


def _dumped(value: Any) -> bytes:
    """A JSON value in ASCII, so that halves of surrogate pairs stay the escapes they came as."""
    return json.dumps(value, separators=(",", ":")).encode()
