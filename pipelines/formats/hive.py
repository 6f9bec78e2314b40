"""Columns that folders give: in `.../date=2026-01-01/region=eu%2Fwest/part-0.parquet`, `date` and `region`, as Hive and Spark write them.

Every `name=value` folder of a file's path counts, wherever `input.paths` starts. Both halves are percent-decoded;
`__HIVE_DEFAULT_PARTITION__` is null. Values are text, whatever they look like (`month=01` stays `01`), unless `input.schema` declares a
type. A column that a file itself has wins over its folders; JSONL has a column if any of its lines has.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from pipelines.errors import PlanError
from pipelines.formats.conform import cast_column
from pipelines.formats.schema import FOLDER_MARK

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_values(path: str) -> dict[str, str | None]:
    """What the folders of a file's path say, by column, the outermost first. Of a name given twice the innermost counts."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1])
    found = {unquote(name): unquote(value) for name, equals, value in pairs if name and equals}
    return {name: None if value == _NULL else value for name, value in found.items()}


def with_folders(schema: pa.Schema, path: str) -> pa.Schema:
    """The schema of the file at `path`, and the columns that only its folders give, marked."""
    for name in folder_values(path):
        if name not in schema.names:
            schema = schema.append(folder_field(name, pa.string()))
    return schema


def check_folders(path: str, names: Iterable[str], declared: Mapping[str, pa.DataType]) -> None:
    """Tries what the folders of `path` say of the columns `names` in the types that `input.schema` declares for them.

    Raises:
        PlanError: one does not fit.
    """
    values = folder_values(path)
    for name in names:
        if name in values and name in declared:
            try:
                _repeated(values[name], declared[name], 1)
            except pa.ArrowException as error:
                raise PlanError(
                    f"the folder {name}={values[name]} of {path} cannot become the {declared[name]} of input.schema: {error}"
                ) from error


def folder_field(name: str, type: pa.DataType) -> "pa.Field[Any]":
    """The field, marked, of a column that the content of files does not have, and their folders give."""
    return pa.field(name, type, metadata={FOLDER_MARK: b""})


def is_from_folders(field: "pa.Field[Any]") -> bool:
    """Whether the field is marked so."""
    return FOLDER_MARK in (field.metadata or {})


def without_mark(field: "pa.Field[Any]") -> "pa.Field[Any]":
    """The field as it goes to the output."""
    return pa.field(field.name, field.type) if is_from_folders(field) else field


def add_folders(table: pa.Table, path: str, schema: pa.Schema) -> pa.Table:
    """The table with the columns of `schema` that it lacks and that the folders of `path` give, in their types."""
    for name, value in folder_values(path).items():
        if name in schema.names and name not in table.column_names:
            field = pa.field(name, schema.field(name).type)
            table = table.append_column(field, _repeated(value, field.type, table.num_rows))
    return table


def _repeated(value: str | None, type: pa.DataType, num_rows: int) -> "pa.ChunkedArray[Any]":
    one = cast_column(pa.chunked_array([pa.array([value], pa.string())]), type)
    return one.take(pa.array([0] * num_rows, pa.int64()))
