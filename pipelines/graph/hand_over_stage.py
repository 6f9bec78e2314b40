"""The operator between two steps of a cascade: what a model is sure enough of is kept, and all else prepared for the next.

Rows are prepared in a child of this process with limits, as where they are read (`pipelines.graph.read_stage`), by the next model's
tokenizer. A unit of which nothing is left goes on without work.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.graph.read_stage import PREPARERS, faulty_unit, prepared_block
from pipelines.job import Job
from pipelines.ledger.unit_files import encode_results
from pipelines.rows.blocks import (
    ANSWERS,
    KEPT,
    PREPARED,
    ROWS,
    WORK,
    block_of,
    packed,
    packed_in,
    value_in,
    with_packed,
)
from pipelines.rows.row_guard import guarded
from pipelines.rows.rows import Answers, PreparedUnit, UnitRows
from pipelines.rows.set_apart import kept_answers_of, with_failed_answers
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.steps import KeptRows, SureRows, kept_rows, left_of, num_left, sure_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class HandOver:
    """Hands over one unit a call, from the step number `step` (from 0) with its `job` and `facts` to the next. `read` is the pickled
    `ReadSettings` of the run."""

    read: bytes
    step: int
    job: Job
    facts: TaskFacts
    until: float

    def __call__(self, block: pa.Table) -> pa.Table:
        """The block with the next model's work in the place of answers."""
        prepared = value_in(block, PREPARED)
        if not isinstance(prepared, PreparedUnit):
            return with_packed(block, ANSWERS, WORK, None)
        rows: UnitRows = value_in(block, ROWS)
        before: tuple[KeptRows, ...] = value_in(block, KEPT) or ()
        try:
            kept = (*before, self._kept(prepared, answers_in(block), num_left(rows, before)))
            left = left_of(rows, kept)
        except Exception as error:  # noqa: BLE001 - the unit boundary
            return _going_on(block, faulty_unit(prepared.unit, error))
        following = self._prepared(left) if left.rows.num_rows else _nothing_left(prepared)
        return with_packed(_going_on(block, following), KEPT, KEPT, packed(kept))

    def _kept(self, prepared: PreparedUnit, answers: Answers, num_asked: int) -> KeptRows:
        """What stays of this step's answers. Rows that our own code fails on go on."""
        sure = guarded(
            prepared.rows.num_rows,
            lambda faulty: self._sure(*with_failed_answers(prepared, answers, faulty)),
            lambda keep: self._sure(*kept_answers_of(prepared, answers, keep)),
        )
        return kept_rows(sure, num_asked, until=self.until)

    def _sure(self, prepared: PreparedUnit, answers: Answers) -> SureRows:
        """Encoded too, which is where a row shows that cannot be written."""
        sure = sure_rows(self.job, self.facts, prepared, answers)
        encode_results(sure.finished, self.job.output.format)
        return sure

    def _prepared(self, left: UnitRows) -> pa.Table:
        return prepared_block(PREPARERS.of(self.read, self.step + 1), left)


def answers_in(block: pa.Table) -> Answers:
    """The answers to a prepared unit; none to one that an engine had nothing to do for."""
    found: Answers | None = value_in(block, ANSWERS)
    return Answers(results=(), seconds=0.0) if found is None else found


def _nothing_left(prepared: PreparedUnit) -> pa.Table:
    none = replace(
        prepared,
        rows=prepared.rows.kept(np.zeros(prepared.rows.num_rows, np.bool_)),
        row_numbers=prepared.row_numbers[:0],
        failures=(),
        requests=(),
        texts=(),
        prompt=None,
    )
    return block_of(**{PREPARED: none, WORK: None})


def _going_on(block: pa.Table, following: pa.Table) -> pa.Table:
    """The block with what was prepared for the next step, and its work."""
    block = with_packed(block, PREPARED, PREPARED, packed_in(following, PREPARED))
    return with_packed(block, ANSWERS, WORK, packed_in(following, WORK))
