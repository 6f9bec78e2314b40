"""The units of a run that is planned, read from its table and believed only as far as `run.json` vouches for it.

    for unit in planned_units(store, record): ...      # in order, as they are asked for
    rows_of_units(store, record)                        # how many rows each has [units]

Everything that is wrong with the table is a `DamageError`: without it the rows of a run are not
known.
"""

import hashlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.errors import DamageError
from pipelines.io.outputs import Store
from pipelines.ledger.receipts import Shard
from pipelines.ledger.run_record import RunRecord
from pipelines.rows.unit import Unit
from pipelines.units.unit_table import iter_units

UNITS = "units.parquet"
_BYTES_PER_READ = 1 << 20


def shard_of_file(name: str, file: BinaryIO) -> Shard:
    """Size and hash of what a file holds from where it stands."""
    digest, num_bytes = hashlib.sha256(), 0
    while piece := file.read(_BYTES_PER_READ):
        digest.update(piece)
        num_bytes += len(piece)
    return Shard(name=name, num_bytes=num_bytes, sha256=digest.hexdigest())


def planned_units(store: Store, record: RunRecord) -> Iterator[Unit]:
    """The units of the plan, in order.

    Raises:
        DamageError: the table is not the one that was planned.
        OutputError: it cannot be read.
    """
    with store.open(UNITS) as file:
        if record.units is not None and shard_of_file(UNITS, file) != record.units:
            raise _damage(store, "it is not the table that the run was planned with")
        file.seek(0)
        try:
            yield from _continuous(iter_units(file), record)
        except (pa.ArrowException, ValueError, TypeError, OSError) as error:
            raise _damage(store, str(error).partition("\n")[0]) from error


def rows_of_units(store: Store, record: RunRecord) -> npt.NDArray[np.int64]:
    """How many rows were planned for each unit [units].

    Raises:
        DamageError: the table is not the one that was planned.
        OutputError: it cannot be read.
    """
    return np.fromiter((unit.num_rows for unit in planned_units(store, record)), np.int64, record.plan.num_units)


def _continuous(units: Iterator[Unit], record: RunRecord) -> Iterator[Unit]:
    """The units, if they number every row of the plan exactly once.

    Raises:
        ValueError: they do not.
    """
    num_units = num_rows = next_row = 0
    path = None
    for unit in units:
        if unit.path != path:
            path, next_row = unit.path, 0
        if unit.index != num_units or unit.first_row != next_row or unit.num_rows < 1:
            raise ValueError(f"unit {num_units} does not continue the unit before it")
        num_units, num_rows, next_row = num_units + 1, num_rows + unit.num_rows, unit.first_row + unit.num_rows
        yield unit
    if (num_units, num_rows) != (record.plan.num_units, record.plan.num_rows):
        planned = f"{record.plan.num_units} units and {record.plan.num_rows} rows were planned"
        raise ValueError(f"it has {num_units} units and {num_rows} rows, {planned}")


def _damage(store: Store, reason: str) -> DamageError:
    return DamageError(f"{store.location}/{UNITS} is damaged: {reason}; restore it, or use a new output.path")
