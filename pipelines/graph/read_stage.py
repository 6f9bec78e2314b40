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

from pipelines.errors import OverrunsError
from pipelines.graph.outcomes import LeftOut
from pipelines.job import Job
from pipelines.ledger.permit import Permit
from pipelines.rows.blocks import KEPT, PREPARED, ROWS, WORK, block_of
from pipelines.rows.row_guard import unit_fault
from pipelines.rows.rows import UnitRows
from pipelines.rows.unit import Unit, UnreadableUnit
from pipelines.unit_steps.found_model import FoundModel
from pipelines.unit_steps.isolated_preparer import IsolatedPreparer
from pipelines.units.reading import ReadsUnits, group_units

UNITS_PER_TASK = 4
MAX_TASKS = 1000
MIN_TASKS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSettings:
    """What a task needs to read and prepare any unit of the run."""

    job: Job
    reader: ReadsUnits
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
            yield _for_steps(known.job, block_of(**{PREPARED: found, WORK: None}), None)
        else:
            yield _for_steps(known.job, prepared_block(PREPARERS.of(settings), found), found)
    yield _for_steps(known.job, block_of(**{PREPARED: LeftOut(), WORK: None}), None)


def _for_steps(job: Job, block: pa.Table, rows: UnitRows | None) -> pa.Table:
    """A block with what the steps of a cascade need besides; the block itself without one."""
    if not job.cascade:
        return block
    steps = block_of(**{ROWS: rows, KEPT: None})
    return block.append_column(ROWS, steps.column(ROWS)).append_column(KEPT, steps.column(KEPT))


def prepared_block(preparer: IsolatedPreparer, found: UnitRows) -> pa.Table:
    """The block of a unit that could be read: `PREPARED` and `WORK`."""
    try:
        return preparer.block(found)
    except OverrunsError as error:
        return block_of(**{PREPARED: UnreadableUnit(unit=found.unit, message=str(error), is_overrun=True), WORK: None})
    except Exception as error:  # noqa: BLE001 - the unit boundary
        return faulty_unit(found.unit, error)


def faulty_unit(unit: Unit, error: Exception) -> pa.Table:
    """The block of a unit on which our own code failed: `PREPARED` and `WORK`."""
    return block_of(**{PREPARED: UnreadableUnit(unit=unit, message=unit_fault(error), is_fault=True), WORK: None})


class KeptPreparers:
    """The preparers of the run that this process last worked for, one for each of its models: loading a tokenizer takes up to seconds, and
    is done once a run."""

    def __init__(self) -> None:
        self._settings = b""
        self._preparers: dict[int, IsolatedPreparer] = {}

    def of(self, settings: bytes, step: int = 0) -> IsolatedPreparer:
        """The preparer of a step, from 0, of a run's pickled `ReadSettings`; those of another run are closed."""
        if settings != self._settings:
            self.close()
            self._settings = settings
        if step not in self._preparers:
            known: ReadSettings = pickle.loads(settings)  # noqa: S301
            job = known.job.steps[step]
            self._preparers[step] = FoundModel.of(job).preparer(job)
        return self._preparers[step]

    def close(self) -> None:
        while self._preparers:
            self._preparers.popitem()[1].close()


PREPARERS = KeptPreparers()
