"""One column of the input, read again behind a run that was planned with or without it.

A run's schema has only the columns that the run needed, so the column's type is looked for anew in each file.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa

from pipelines.errors import SourceError
from pipelines.formats.hive import folder_field, folder_values
from pipelines.formats.json_line import parse_line
from pipelines.formats.json_values import JsonText
from pipelines.formats.schema import Columns, parse_types, select_columns
from pipelines.input_formats.input_format import Stretch, UnitsWanted
from pipelines.input_formats.table import FORMATS
from pipelines.io.inputs import Storage
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import NO_ROW_GROUP, Unit, UnreadableUnit
from pipelines.units.reading import UnitReader

Values = Mapping[int, Any]
"""JSON values by row number."""


def read_column(
    units: Sequence[Unit], column: str, *, types: Mapping[str, str], storage: Storage
) -> Iterator[tuple[Unit, Values | None]]:
    """The values of `column` in each unit, as far as its rows have it; None for a unit whose file has no such column. `types` is the
    `input.schema` that the run had.

    Raises:
        SourceError: a file cannot be read, or is no longer the one that was planned.
        PlanError: a file is not of the format that it was.
    """
    declared = parse_types({name: type for name, type in types.items() if name == column})
    for path, group in groupby(units, key=lambda unit: unit.path):
        of_file = list(group)
        found = _field_at(path, of_file[0], column, declared, storage)
        if found is None:
            yield from ((unit, None) for unit in of_file)
            continue
        reader = UnitReader(schema=pa.schema([found]), declared=frozenset(declared), storage=storage)
        for read in reader.read_units(of_file):
            if isinstance(read, UnreadableUnit):
                raise SourceError(read.message)
            yield read.unit, _values(read, column)


def _field_at(
    path: str, unit: Unit, column: str, declared: Mapping[str, pa.DataType], storage: Storage
) -> "pa.Field[Any] | None":
    """The column as a file has it, or the folders of its path; None if they have not. Text has no types of its own."""
    format = FORMATS[unit.format]
    if unit.row_group == NO_ROW_GROUP:
        head = format.columns_at_head(storage, path)
        if column in folder_values(path) and column not in head.names:
            return folder_field(column, declared.get(column, pa.string()))
        return pa.field(column, declared.get(column, pa.string())) if column in head.names or not head.is_all else None
    needed = Columns(carried=(column,))
    wanted = UnitsWanted(storage=storage, columns=needed, unit_rows=unit.num_rows)
    schema = format.scan(wanted, Stretch(path=path, size=unit.source_size, start=0, end=unit.source_size)).schema
    assert schema is not None, "files with row groups say their types"
    if column not in schema.names:
        return None
    found = select_columns(schema, needed).field(column)
    return found.with_type(declared[column]) if column in declared else found


def _values(read: UnitRows, column: str) -> dict[int, Any]:
    rows = zip(read.row_numbers.tolist(), read.rows.as_json(), strict=True)
    return {number: _plain(row[column]) for number, row in rows if column in row}


def _plain(value: Any) -> Any:
    """JSON text as the value it is."""
    return parse_line(bytes(value)) if isinstance(value, JsonText) else value
