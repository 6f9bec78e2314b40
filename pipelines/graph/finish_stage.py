"""The last operator: answers become columns, the unit is committed, and its outcome goes to the driver."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from pipelines.errors import LeaseError, OutputError
from pipelines.graph.hand_over_stage import answers_in
from pipelines.graph.outcomes import Committed, Halted, LeftOut, UnitOutcome
from pipelines.job import Job
from pipelines.kinds import INTERNAL_ERROR
from pipelines.ledger.commit import CommitsUnits
from pipelines.ledger.unit_files import encode_results
from pipelines.rows.blocks import KEPT, OUTCOME, PREPARED, ROWS, block_of, value_in
from pipelines.rows.row_guard import fault_name, guarded, unit_fault
from pipelines.rows.rows import Answers, FinishedUnit, PreparedUnit, UnitRows
from pipelines.rows.set_apart import kept_answers_of, with_failed_answers
from pipelines.rows.streak import Fault
from pipelines.rows.unit import UnreadableUnit
from pipelines.task_base.facts import TaskFacts
from pipelines.unit_steps.finish import finish
from pipelines.unit_steps.steps import KeptRows, merged

Merge = Callable[[PreparedUnit, FinishedUnit], FinishedUnit]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishAndCommit:
    """Concludes one unit a call. Of a cascade `job` and `facts` are those of the last step, and `names` what its models are called; there
    are none without one."""

    job: Job
    facts: TaskFacts
    committer: CommitsUnits
    names: tuple[str, ...] = ()

    def __call__(self, block: pa.Table) -> pa.Table:
        return block_of(**{OUTCOME: self._outcome(block)})

    def _outcome(self, block: pa.Table) -> UnitOutcome:
        prepared: PreparedUnit | UnreadableUnit | LeftOut = value_in(block, PREPARED)
        if not isinstance(prepared, PreparedUnit):
            return prepared
        merge = self._merging(block) if self.names else _as_it_is
        try:
            return self._concluded(prepared, answers_in(block), merge)
        except (OutputError, LeaseError) as error:
            return Halted(message=str(error))
        except Exception as error:  # noqa: BLE001 - the unit boundary
            return UnreadableUnit(unit=prepared.unit, message=unit_fault(error), is_fault=True)

    def _concluded(self, prepared: PreparedUnit, answers: Answers, merge: Merge) -> Committed:
        def finished(prepared: PreparedUnit, answers: Answers) -> FinishedUnit:
            return merge(prepared, finish(self.job, self.facts, prepared, answers))

        return guarded(
            prepared.rows.num_rows,
            lambda faulty: self._committed(finished(*with_failed_answers(prepared, answers, faulty))),
            lambda keep: encode_results(finished(*kept_answers_of(prepared, answers, keep)), self.job.output.format),
        )

    def _merging(self, block: pa.Table) -> Merge:
        """What puts the rows of earlier steps beside those of the last."""
        rows: UnitRows = value_in(block, ROWS)
        kept: tuple[KeptRows, ...] = value_in(block, KEPT)
        return partial(merged, self.job, self.names, rows, kept)

    def _committed(self, finished: FinishedUnit) -> Committed:
        return Committed(receipt=self.committer.commit(finished), faults=_faults_in(finished))


def _as_it_is(prepared: PreparedUnit, finished: FinishedUnit) -> FinishedUnit:
    del prepared
    return finished


def _faults_in(finished: FinishedUnit) -> tuple[Fault, ...]:
    """The faults of ours among a unit's dead letters, the last of each kind."""
    faults = {
        fault_name(failure.message): (failure.message, failure.row)
        for failure in finished.failures
        if failure.kind == INTERNAL_ERROR
    }
    return tuple(
        Fault(name=name, message=message, path=finished.unit.path, row=row) for name, (message, row) in faults.items()
    )
