"""Rows of a unit as an Arrow table: of Parquet, and of CSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.json_values import json_rows
from pipelines.rows.rows import ArrowColumns, BoolArray, JsonRow
from pipelines.rows.values import column_values, kept_rows, row_or_error


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrowRows:
    """Implements `pipelines.rows.rows.Rows` over a table in the run's schema."""

    table: pa.Table

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    def kept(self, keep: BoolArray) -> "ArrowRows":
        return ArrowRows(table=kept_rows(self.table, keep))

    def carried(self, columns: tuple[str, ...] | None) -> "ArrowRows":
        return self if columns is None else ArrowRows(table=self.table.select(list(columns)))

    def values(self, columns: frozenset[str] | None) -> list[Mapping[str, Any] | RowError]:
        names = [name for name in self.table.column_names if columns is None or name in columns]
        if not names:
            return [{} for _ in range(self.num_rows)]
        values = [column_values(self.table.column(name), name) for name in names]
        return [row_or_error(dict(zip(names, row, strict=True))) for row in zip(*values, strict=True)]

    def as_json(self) -> list[dict[str, Any]]:
        return json_rows(self.table)

    def as_given(self) -> list[JsonRow]:
        return list(self.as_json())

    def as_arrow(self) -> ArrowColumns:
        return ArrowColumns(table=self.table, misfits={})
