"""A job of one pass a row in this process: read, prepared, computed and finished as a run does it, without Ray around it."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.engine.backends import OnePassRequest, scored
from jobs.spec.job import LoadedSpec
from jobs.spec.preflight import Preflight, check_before_run
from models import Scorer
from pipelines.ledger.unit_files import encode_results
from pipelines.rows.rows import Answers, RowFailure
from pipelines.unit_steps.finish import finish
from tests.pipelines.units.test_reading import Corpus


@dataclass(frozen=True, slots=True)
class Answered:
    """The rows that a job writes, and those that have no result."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[RowFailure] = field(default_factory=list)


@contextmanager
def opened_here(spec: LoadedSpec) -> Iterator[Preflight]:
    """A spec that is as it should be, with what was opened on the way."""
    with closing(check_before_run(spec)) as found:
        yield found


def answered_here(spec: LoadedSpec) -> Answered:
    """What becomes of the job's rows."""
    job, answered = spec.job, Answered()
    scorer = Scorer.from_pretrained(job.model.path, dtype="float32")
    with opened_here(spec) as found:
        (preparer,) = found.preparers
        asked = preparer.fitted.asked
        assert not asked.labels
        for unit in Corpus(*map(Path, job.input.paths)).read():
            prepared = preparer.prepare(unit)
            requests = [OnePassRequest(request.token_ids.tolist(), ()) for request in prepared.requests]
            finished = finish(job, found.facts, prepared, Answers(results=scored(scorer, asked, requests), seconds=0.0))
            answered.rows.extend(map(json.loads, encode_results(finished, "jsonl").splitlines()))
            answered.failures.extend(finished.failures)
    return answered
