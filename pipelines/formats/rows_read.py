"""Rows of one unit on their way from a text format's parser: in any order, then in order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import RowError
from pipelines.formats.conform import conform


@dataclass(slots=True)
class RowsRead:
    """Rows of one unit as they come in, in any order: tables of the run's schema with positions, and failures by position."""

    schema: pa.Schema
    tables: list[pa.Table]
    positions: list[int]
    failures: dict[int, RowError]

    @classmethod
    def empty(cls, schema: pa.Schema) -> "RowsRead":
        return cls(schema=schema, tables=[], positions=[], failures={})

    def add(self, table: pa.Table, positions: Sequence[int]) -> None:
        """Adds rows of any types, at their positions; those that do not fit the schema fail."""
        fitted = conform(table, self.schema)
        self.tables.append(fitted.table)
        self.positions += [positions[row] for row in fitted.positions]
        self.failures.update((positions[row], error) for row, error in fitted.misfits.items())

    def in_order(self) -> pa.Table:
        """The good rows by position; their positions are then in order too."""
        table = pa.concat_tables([self.schema.empty_table(), *self.tables])
        order = sorted(range(len(self.positions)), key=self.positions.__getitem__)
        self.positions.sort()
        return table.take(pa.array(order, pa.int64())) if order != list(range(len(order))) else table

    def add_most(self, positions: Sequence[int], parse: Callable[[Sequence[int]], pa.Table | None]) -> list[int]:
        """Adds all records that `parse` accepts, by halving until it does, and returns the positions of those refused even alone.

        `parse` makes a row of each record at the given positions, or refuses them all; so a record's fate is its own.
        """
        if not positions:
            return []
        table = parse(positions)
        if table is not None:
            self.add(table, positions)
            return []
        if len(positions) == 1:
            return list(positions)
        middle = len(positions) // 2
        return self.add_most(positions[:middle], parse) + self.add_most(positions[middle:], parse)
