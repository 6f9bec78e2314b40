"""Preparing units in a process with limits on memory and time: templates and tokenizers of strangers run there, and nowhere else.

    with closing(IsolatedPreparer(job, folder, config)) as preparer:
        columns = preparer.fitted.columns
        prepared = preparer.prepare(rows)

A row that goes over the limits, or ends the process, is a dead letter, and the others come out as if it was not there. The limit of
time is one of computing, so that a busy machine makes no difference; templates have one of steps before it (`models.templates.budget`).
"""

import re
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa

from models.config.model_config import ModelConfig
from models.errors import OverrunError, TokenizerError
from models.isolation import IsolatedPool, ProcessLimits
from pipelines.errors import OverrunsError, RowError, TaskError
from pipelines.job import Job
from pipelines.kinds import TEMPLATE_ERROR, TOKENIZER_ERROR
from pipelines.rows.rows import PreparedUnit, UnitRows
from pipelines.rows.set_apart import kept_rows_of, with_failed_rows
from pipelines.task_base.pace import SLICE_CHARS, Doing, Place
from pipelines.task_base.task import Task
from pipelines.unit_steps.isolated_work import FittedTask, Workbench, fit_task, prepare_block, prepare_unit

LIMITS: Final = ProcessLimits(memory_bytes=2 << 30, step_cpu_s=5.0, step_s=600.0)
"""Of a row's templates, and of tokenizing its text beside what the text's length adds. Templates run out of steps sooner, unless the
machine is slow; the clock is for what neither computes nor ends."""

MAX_OVERRUNS: Final = 16
"""Rows of one unit. If there are more of them, then rows are not what is wrong: the unit is given up."""

_ONE_BY_ONE: Final = 0

Result = TypeVar("Result")


class IsolatedPreparer:
    """Prepares the units of one job, one at a time; see `Preparer`. `num_overruns` counts rows that went over the limits.

    Its process starts at once, in the background, and ends with `close` or with this process.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        config: ModelConfig,
        *,
        limits: ProcessLimits = LIMITS,
        max_overruns: int = MAX_OVERRUNS,
    ) -> None:
        self._task, self._folder, self._max_overruns = job.task, folder, max_overruns
        self._pool = IsolatedPool(partial(Workbench, job, folder, config), limits=limits)
        self.num_overruns = 0

    def load(self) -> None:
        """Waits until the tokenizer is read.

        Raises:
            TokenizerError: it cannot be used, or took too much time or memory.
        """
        try:
            self._pool.start()
        except OverrunError as error:
            raise TokenizerError(f"the tokenizer of {self._folder} cannot be loaded: {error}") from error

    def is_settled(self, timeout_s: float) -> bool:
        """Waits at most so long for the tokenizer; whether `load` would return, or raise, at once."""
        return self._pool.is_settled(timeout_s)

    @cached_property
    def fitted(self) -> FittedTask:
        """The task on its checkpoint.

        Raises:
            TokenizerError: the tokenizer cannot be used.
            TaskError: the task cannot be run on this checkpoint; `place` is the key of the spec.
        """
        self.load()
        try:
            return self._pool.run(fit_task)
        except OverrunError as error:
            raise TaskError(
                "model.path",
                f"the checkpoint's chat template and tokenizer were tried on a few words, and ended: {error}; "
                "use another checkpoint",
            ) from error

    def prepare(self, rows: UnitRows) -> PreparedUnit:
        """A unit, prepared.

        Raises:
            OverrunsError: too many of its rows went over the limits, or all together did.
        """
        return self._within_limits(prepare_unit, rows)

    def block(self, rows: UnitRows) -> pa.Table:
        """A unit, prepared, as the block that the engine stage takes.

        Raises:
            OverrunsError: too many of its rows went over the limits, or all together did.
        """
        return self._within_limits(prepare_block, rows)

    def close(self) -> None:
        """Ends the process."""
        self._pool.close()

    def _within_limits(self, work: "Callable[[Workbench, UnitRows, int], Result]", rows: UnitRows) -> Result:
        """The work on the rows, without those that go over the limits: each costs its limit once, and the rows before it again."""
        slice_chars = SLICE_CHARS
        num_over = 0
        while True:
            try:
                return self._pool.run(work, rows, slice_chars)
            except OverrunError as error:
                place = Place.of(error.step) if error.step is not None else Place(0, Doing.UNIT)
                if place.doing is Doing.TOKENIZING_SLICE:
                    slice_chars = _ONE_BY_ONE
                    continue
                if place.doing is Doing.UNIT or not self._is_guilty(work, rows, place, error):
                    raise OverrunsError(
                        f"preparing the rows of a unit was ended: {error}; if they are large, lower unit_rows"
                    ) from error
                num_over += 1
                self.num_overruns += 1
                letter = _letter(self._task, place, error)
                if num_over > self._max_overruns:
                    raise OverrunsError(
                        f"{num_over} rows of a unit went over the limits of preparing one, the last row {place.row}: "
                        f"{letter.message}"
                    ) from error
                rows = with_failed_rows(rows, {_position(rows, place): letter})

    def _is_guilty(
        self,
        work: "Callable[[Workbench, UnitRows, int], Result]",
        rows: UnitRows,
        place: Place,
        error: OverrunError,
    ) -> bool:
        """Whether it is that row which goes over the limits. Time is a row's own; memory may have been taken by those before it."""
        if error.reason == "time":
            return True
        alone = kept_rows_of(rows, np.arange(rows.rows.num_rows) == _position(rows, place))
        try:
            self._pool.run(work, alone, _ONE_BY_ONE)
        except OverrunError:
            return True
        return False


def _position(rows: UnitRows, place: Place) -> int:
    return int(np.flatnonzero(rows.row_numbers == place.row)[0])


def _letter(task: Task, place: Place, error: OverrunError) -> RowError:
    """The dead letter of a row that went over the limits."""
    if place.doing is Doing.RENDERING:
        what = f"{_templates_of(task)}: rendering this row was ended: {error}"
        return RowError(TEMPLATE_ERROR, f"{what}; let the template do less, or shorten the row")
    what = f"the checkpoint's tokenizer was ended on this row's text: {error}"
    return RowError(TOKENIZER_ERROR, f"{what}; shorten the text, or use another checkpoint")


def _templates_of(task: Task) -> str:
    """The keys of what is rendered for a row."""
    keys = dict.fromkeys(re.split(r"[\[.]", place.removeprefix("task."))[0] for place, _ in task.templates())
    return ", ".join(f"task.{key}" for key in keys) + (
        ", or the checkpoint's chat template" if task.uses_chat_template else ""
    )
