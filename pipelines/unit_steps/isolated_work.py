"""What a worker of `pipelines.unit_steps.isolated_preparer` does: the side of a job that runs strangers' templates and tokenizers.

The tokenizer is read once, in the server that workers are forked from. All else, which renders and tokenizes already, is made in each
worker when it is first asked for.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from actors.work import ApiWork, Asked, Work
from models.config.model_config import ModelConfig
from models.text.tokenizer import Tokenizer
from pipelines.formats.schema import Columns
from pipelines.job import Job
from pipelines.rows.blocks import PREPARED, WORK, block_of
from pipelines.rows.row_guard import guarded, unit_fault
from pipelines.rows.rows import SHOWN_UNIT, PreparedUnit, UnitRows
from pipelines.rows.set_apart import kept_rows_of, with_failed_rows
from pipelines.rows.unit import UnreadableUnit, work_name
from pipelines.task_base.facts import TaskFacts
from pipelines.task_base.requests import Piece, work_of
from pipelines.unit_steps.prepare import Preparer


class Workbench:
    """The context of the workers of one job.

    Raises:
        TokenizerError: the folder has no tokenizer that can be used.
    """

    def __init__(self, job: Job, folder: Path, config: ModelConfig) -> None:
        self._job, self._folder, self._config = job, folder, config
        self._tokenizer = Tokenizer.from_pretrained(folder, now=job.now)

    @cached_property
    def facts(self) -> TaskFacts:
        facts = TaskFacts.from_config(self._config, self._tokenizer, self._job.engine.max_model_len)
        return replace(facts, own=self._job.task.read_own(self._folder, self._config, self._tokenizer))

    @cached_property
    def preparer(self) -> Preparer:
        return Preparer(self._job, self._tokenizer, self.facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTask:
    """A task on its checkpoint: what `Preparer` tells of it."""

    facts: TaskFacts
    columns: Columns
    asked: Asked
    trial: tuple[Piece, ...] = ()


def fit_task(bench: Workbench) -> FittedTask:
    """Raises TaskError if the task cannot be run on the checkpoint."""
    preparer = bench.preparer
    return FittedTask(facts=bench.facts, columns=preparer.columns, asked=preparer.asked, trial=preparer.trial)


def prepare_unit(bench: Workbench, rows: UnitRows, slice_chars: int) -> PreparedUnit:
    """A unit, prepared; see `Preparer.prepare`."""
    return bench.preparer.prepare(rows, relative_path=rows.unit.relative_path, slice_chars=slice_chars)


def prepare_block(bench: Workbench, rows: UnitRows, slice_chars: int) -> pa.Table:
    """A unit, prepared, as the block that the engine stage takes. Rows that our own code fails on are set apart; where it fails on
    none in particular, the unit is one that could not be read."""

    def block(some: UnitRows) -> pa.Table:
        prepared = prepare_unit(bench, some, slice_chars)
        if prepared.unit.index != SHOWN_UNIT:
            prepared = replace(prepared, prompt=None)
        return block_of(**{PREPARED: prepared, WORK: _engine_work(prepared, bench.preparer.asked)})

    try:
        return guarded(
            rows.rows.num_rows,
            lambda faulty: block(with_failed_rows(rows, faulty)),
            lambda keep: block(kept_rows_of(rows, keep)),
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the unit boundary
        failed = UnreadableUnit(unit=rows.unit, message=unit_fault(error), is_fault=True)
        return block_of(**{PREPARED: failed, WORK: None})


def _engine_work(prepared: PreparedUnit, asked: Asked) -> Work:
    """A prepared unit's requests as an engine takes them."""
    name = work_name(prepared.unit.index)
    if asked.api is not None:
        seeds = [request.seed for request in prepared.requests]
        calls = [request.call for request in prepared.requests if request.call is not None]
        return ApiWork(name=name, calls=tuple(calls), seeds=tuple(seeds))
    return work_of(name, prepared.requests)
