"""Rows of a unit of JSONL with the columns that its folders give: the same values in every row."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.hive import add_folders, is_from_folders, without_mark
from pipelines.formats.json_values import json_rows
from pipelines.rows.line_rows import LineRows
from pipelines.rows.rows import ArrowColumns, BoolArray, JsonRow
from pipelines.rows.values import column_values, row_or_error


def in_folders(rows: LineRows, path: str, schema: pa.Schema) -> "FolderRows":
    """The rows with the columns of the run's schema that the folders of their file at `path` give."""
    given = pa.schema([field for field in schema if is_from_folders(field)])
    one_row = add_folders(pa.table({"": [None]}), path, given).drop_columns([""])
    return FolderRows(rows=rows, folders=one_row, schema=pa.schema(map(without_mark, schema)))


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderRows:
    """Implements `pipelines.rows.rows.Rows` over lines and one row of folders' values; `schema` has the columns that go to the output.

    A column that other files' folders give and this one's do not is null in Arrow, and missing elsewhere.
    """

    rows: LineRows
    folders: pa.Table
    schema: pa.Schema

    @property
    def num_rows(self) -> int:
        return self.rows.num_rows

    def kept(self, keep: BoolArray) -> "FolderRows":
        return replace(self, rows=self.rows.kept(keep))

    def carried(self, columns: tuple[str, ...] | None) -> "FolderRows":
        if columns is None:
            return self
        own = tuple(name for name in columns if name in self.rows.schema.names)
        folders = self.folders.select([name for name in self.folders.column_names if name in columns])
        schema = pa.schema([self.schema.field(name) for name in columns])
        return FolderRows(rows=self.rows.carried(own), folders=folders, schema=schema)

    def values(self, columns: frozenset[str] | None) -> list[Mapping[str, Any] | RowError]:
        given = {
            name: column_values(self.folders.column(name), name)[0]
            for name in self.folders.column_names
            if columns is None or name in columns
        }
        return [
            row if isinstance(row, RowError) else row_or_error({**row, **given}) for row in self.rows.values(columns)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        given = json_rows(self.folders)[0] if self.folders.num_columns else {}
        return [self._in_order(row | given) for row in self.rows.as_json()]

    def _in_order(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as it is if all columns go to the output, else in the job's order."""
        return row if self.rows.columns is None else {name: row[name] for name in self.schema.names if name in row}

    def as_given(self) -> list[JsonRow]:
        return self.rows.as_given()

    def as_arrow(self) -> ArrowColumns:
        own = self.rows.as_arrow()
        first = pa.array([0] * self.num_rows, pa.int64())
        arrays: list[Any] = []
        for field in self.schema:
            if field.name in own.table.column_names:
                arrays.append(own.table.column(field.name))
            elif field.name in self.folders.column_names:
                arrays.append(self.folders.column(field.name).take(first))
            else:
                arrays.append(pa.nulls(self.num_rows, field.type))
        return ArrowColumns(table=pa.Table.from_arrays(arrays, schema=self.schema), misfits=own.misfits)
