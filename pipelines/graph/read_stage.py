"""The first operator: units are read and prepared, one block per unit, a few units per task.

Reading and preparing share an operator because every operator costs time for every unit. Units are read in this process and prepared in a
child of it with limits (`pipelines.unit_steps.isolated_preparer`), which makes the block. A unit that cannot be read goes through the graph
as what it is, without work for the engine.
"""

import functools
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from models.config.model_config import ModelConfig
from pipelines.errors import OverrunsError
from pipelines.graph.outcomes import LeftOut
from pipelines.job import Job
from pipelines.ledger.permit import Permit
from pipelines.rows.blocks import PREPARED, WORK, block_of
from pipelines.rows.row_guard import unit_fault
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.reading import UnitReader, group_units

UNITS_PER_TASK = 4
MAX_TASKS = 1000
MIN_TASKS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """What a task needs to read and prepare any unit of the run."""

    job: Job
    reader: UnitReader
    permit: Permit


class UnitSource(Datasource):
    """The units that are left to do. `units` gives them anew each time it is called, so that the driver never holds all of them."""

    def __init__(self, settings: ReadSettings, units: Callable[[], Iterable[Unit]], num_units: int) -> None:
        self._settings = pickle.dumps(settings)
        self._units = units
        self._units_per_task = units_per_task(num_units)
        self.num_tasks = sum(1 for _ in task_units(units(), self._units_per_task))

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        del parallelism, per_task_row_limit, data_context
        return [self._task(units) for units in task_units(self._units(), self._units_per_task)]

    def _task(self, units: tuple[Unit, ...]) -> ReadTask:
        read = functools.partial(read_and_prepare, self._settings, pickle.dumps(units))
        metadata = BlockMetadata(num_rows=len(units), size_bytes=None, input_files=None, exec_stats=None)
        return ReadTask(read, metadata)


def units_per_task(num_units: int) -> int:
    """A few, so that losing a task costs little; more in a large corpus, because the driver starts every task; fewer in a small one, so
    that several read at once."""
    return max(min(UNITS_PER_TASK, num_units // MIN_TASKS), num_units // MAX_TASKS, 1)


def task_units(units: Iterable[Unit], per_task: int) -> Iterator[tuple[Unit, ...]]:
    """Splits units, in order, into those of one task. What can only be read in one pass stays together."""
    task: list[Unit] = []
    for group in group_units(units):
        if task and len(task) + len(group) > per_task:
            yield tuple(task)
            task = []
        task += group
    if task:
        yield tuple(task)


def read_and_prepare(settings: bytes, units: bytes) -> Iterator[pa.Table]:
    """One block for each unit, and a last one in the place of all others once the run starts no new ones: Ray Data would make an empty
    block of a task that yields none. Both arguments are pickles of the driver's."""
    known: ReadSettings = pickle.loads(settings)  # noqa: S301
    found_units = known.reader.read_units(pickle.loads(units))  # noqa: S301
    while known.permit.is_given():
        found = next(found_units, None)
        if found is None:
            return
        if isinstance(found, UnreadableUnit):
            yield block_of(**{PREPARED: found, WORK: None})
        else:
            yield _prepared_block(PREPARERS.of(settings), found)
    yield block_of(**{PREPARED: LeftOut(), WORK: None})


def _prepared_block(preparer: IsolatedPreparer, found: UnitRows) -> pa.Table:
    """The block of a unit that could be read."""
    try:
        return preparer.block(found)
    except OverrunsError as error:
        failed = UnreadableUnit(unit=found.unit, message=str(error), is_overrun=True)
    except Exception as error:  # noqa: BLE001 - the unit boundary
        failed = UnreadableUnit(unit=found.unit, message=unit_fault(error), is_fault=True)
    return block_of(**{PREPARED: failed, WORK: None})


class KeptPreparer:
    """The preparer of the run that this process last worked for: loading a tokenizer takes up to seconds, and is done once a run."""

    def __init__(self) -> None:
        self._settings = b""
        self._preparer: IsolatedPreparer | None = None

    def of(self, settings: bytes) -> IsolatedPreparer:
        """The preparer of a run's pickled `ReadSettings`; that of another run is closed."""
        if self._preparer is None or settings != self._settings:
            self.close()
            known: ReadSettings = pickle.loads(settings)  # noqa: S301
            folder = known.job.model.find("description").folder
            self._preparer = IsolatedPreparer(known.job, folder, ModelConfig.from_pretrained(folder))
            self._settings = settings
        return self._preparer

    def close(self) -> None:
        if self._preparer is not None:
            self._preparer.close()
            self._preparer = None


PREPARERS = KeptPreparer()
