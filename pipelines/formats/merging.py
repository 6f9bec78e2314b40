"""One schema from the schemas of many files: columns by name, types widened where nothing is lost, conflicts named.

Which type holds two others is `pipelines.formats.type_merge`.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipelines.errors import PlanError
from pipelines.formats.schema import Columns
from pipelines.formats.type_merge import merge_types


@dataclass(slots=True)
class SchemaMerger:
    """Merges schemas file by file. `declared` types replace the files' own."""

    columns: Columns
    declared: dict[str, pa.DataType]
    schema: pa.Schema = field(default_factory=lambda: pa.schema([]))
    _first_paths: dict[str, str] = field(default_factory=dict)
    _last: pa.Schema | None = None

    def add(self, schema: pa.Schema, path: str) -> None:
        """Merges the schema of the file at `path`.

        Raises:
            PlanError: a named column is missing there, its type does not fit the earlier files', or it cannot become the declared one.
        """
        if self._last is not None and schema.equals(self._last):
            return
        self._last = schema
        names = tuple(schema.names)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise PlanError(f"{path} has two columns called {twice!r}; rename one of them")
        self.columns.check(names, path)
        fields = [self._field(schema.field(name), path) for name in names if self.columns.is_needed(name)]
        for name in (one.name for one in fields):
            self._first_paths.setdefault(name, path)
        merged = {one.name: one for one in self.schema} | {one.name: one for one in fields}
        self.schema = pa.schema(merged.values())

    def _field(self, given: "pa.Field[Any]", path: str) -> "pa.Field[Any]":
        """The field as the run would have it after this file."""
        if given.name in self.declared:
            _check_cast(given, self.declared[given.name], path)
            return pa.field(given.name, self.declared[given.name])
        if given.name not in self.schema.names:
            return pa.field(given.name, given.type)
        earlier = self.schema.field(given.name).type
        merged = merge_types(earlier, given.type)
        if merged is None:
            raise PlanError(
                f"column {given.name!r} is {earlier} in {self._first_paths[given.name]} and {given.type} in {path}; "
                "give it a type that fits both in input.schema, or read one of the files in a job of its own"
            )
        return pa.field(given.name, merged)


def _check_cast(given: "pa.Field[Any]", wanted: pa.DataType, path: str) -> None:
    try:
        pa.array([], given.type).cast(wanted)
    except pa.ArrowException as error:
        raise PlanError(
            f"column {given.name!r} is {given.type} in {path} and cannot become the {wanted} of input.schema: {error}"
        ) from error
