"""The last operator: answers become columns, the unit is committed, and its outcome goes to the driver."""

from dataclasses import dataclass

import pyarrow as pa

from pipelines.blocks import ANSWERS, OUTCOME, PREPARED, block_of, value_in
from pipelines.commit import Committer
from pipelines.errors import LeaseError, OutputError
from pipelines.facts import ModelFacts
from pipelines.finish import finish
from pipelines.infer import Answers, inferred
from pipelines.job import Job
from pipelines.outcomes import Halted, LeftOut, Outcome
from pipelines.rows import PreparedUnit
from pipelines.units import UnreadableUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishAndCommit:
    """Concludes one unit a call."""

    job: Job
    facts: ModelFacts
    committer: Committer

    def __call__(self, block: pa.Table) -> pa.Table:
        return block_of(**{OUTCOME: self._outcome(block)})

    def _outcome(self, block: pa.Table) -> Outcome:
        prepared: PreparedUnit | UnreadableUnit | LeftOut = value_in(block, PREPARED)
        if not isinstance(prepared, PreparedUnit):
            return prepared
        answers: Answers = value_in(block, ANSWERS)
        finished = finish(self.job, self.facts, inferred(prepared, answers))
        try:
            return self.committer.commit(finished)
        except (OutputError, LeaseError) as error:
            return Halted(message=str(error))
