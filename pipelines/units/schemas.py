"""One schema for all files of an input, from what each shows of its columns."""

from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.errors import errors_of_file
from pipelines.formats.hive import check_folders, folder_field, folder_values, is_from_folders
from pipelines.formats.json_shape import RowShape
from pipelines.formats.merging import SchemaMerger
from pipelines.formats.schema import Columns, select_columns
from pipelines.input_formats.input_format import UnitsFound


@dataclass(slots=True)
class Schemas:
    """Collects the columns of findings, which come in the order of the input."""

    columns: Columns
    declared: dict[str, pa.DataType]
    _shape: RowShape | None = None
    _folders: dict[str, None] = field(default_factory=dict)  # columns that the folders of files with shapes give
    _merger: SchemaMerger | None = None

    def add(self, found: UnitsFound, path: str) -> None:
        if found.shape is not None:
            missing = [name for name in folder_values(path) if name not in found.shape.columns]
            with errors_of_file(path):
                check_folders(path, missing, self.declared)
            self._folders |= dict.fromkeys(missing)
            self._shape = self._shape or RowShape()
            self._shape.merge(found.shape)
            self._shape.check_width()
        if found.schema is not None:
            self._merger = self._merger or SchemaMerger(columns=self.columns, declared=self.declared)
            with errors_of_file(path):
                check_folders(path, [one.name for one in found.schema if is_from_folders(one)], self.declared)
                self._merger.add(found.schema, path)

    def settle(self) -> pa.Schema:
        """The columns that the job needs.

        Raises:
            PlanError: one of them is missing, or types conflict.
        """
        schema = self.merged()
        self.columns.check(tuple(schema.names), "the input")
        return select_columns(schema, self.columns)

    def merged(self) -> pa.Schema:
        """All columns that were found."""
        schema = self._merger.schema if self._merger else pa.schema([])
        if self._shape is not None:
            inferred = {one.name: one for one in self._shape.to_schema()}
            declared = {name: pa.field(name, type) for name, type in self.declared.items()}
            given = {
                name: folder_field(name, self.declared.get(name, pa.string()))
                for name in self._folders
                if name not in inferred
            }
            schema = pa.schema((inferred | declared | given).values())
        return schema
