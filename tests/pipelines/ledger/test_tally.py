"""What the driver counts, and when enough rows have failed."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.job import MaxFailed
from pipelines.ledger.committed_files import CommittedFiles
from pipelines.ledger.ledger import Survey
from pipelines.ledger.receipts import Receipt, Shard, Totals
from pipelines.ledger.tally import Tally
from pipelines.units.planning import Plan

PLAN = Plan(schema=pa.schema([]), unit_rows=4096, num_files=1, num_units=4, num_rows=4000, num_bytes=1)
NOTHING = Survey(is_committed=np.zeros(4, np.bool_), totals=Totals(), files=CommittedFiles(4))


def receipt(unit: int, *, failed: int = 0) -> Receipt:
    return Receipt(
        unit=unit,
        epoch=1,
        num_rows=1000,
        num_written=1000 - failed,
        num_failed=failed,
        prompt_tokens=10,
        cached_tokens=0,
        completion_tokens=5,
        seconds=1.0,
        data=Shard.of("data", unit, 1, "parquet", b"x"),
        errors=Shard.of("errors", unit, 1, "jsonl", b""),
    )


def test_a_unit_committed_twice_counts_once() -> None:
    tally = Tally(PLAN, NOTHING)
    for _ in range(2):
        tally.add(receipt(1))
    progress = tally.progress("running")
    assert (progress.units_done, progress.rows_done, progress.completion_tokens) == (1, 1000, 5)
    assert tally.num_pending == 3


def test_what_an_earlier_run_committed_is_done_but_not_this_runs_work() -> None:
    earlier = Survey(
        is_committed=np.array([True, False, False, False]),
        totals=Totals(num_units=1, num_rows=1000, prompt_tokens=99),
        files=CommittedFiles(4),
    )
    tally = Tally(PLAN, earlier)
    tally.add(receipt(0))
    tally.add(receipt(1))
    progress = tally.progress("running")
    assert (progress.rows_done, progress.rows_resumed, progress.prompt_tokens) == (2000, 1000, 10)


def test_seconds_count_from_when_the_engines_are_at_work() -> None:
    now = [10.0]
    tally = Tally(PLAN, NOTHING, clock=lambda: now[0])
    now[0] = 20.0
    assert tally.progress("starting").seconds == 0.0
    tally.start_clock()
    now[0] = 25.0
    tally.start_clock()
    assert tally.progress("running").seconds == 5.0


@pytest.mark.parametrize(
    ("allowed", "failed", "is_over"),
    [
        (None, 1000, False),
        (MaxFailed(count=10), 10, False),
        (MaxFailed(count=10), 11, True),
        (MaxFailed(count=0), 1, True),
        (MaxFailed(fraction=0.01), 10, False),
        (MaxFailed(fraction=0.01), 11, True),
    ],
)
def test_failed_rows_are_compared_with_what_is_allowed(allowed: MaxFailed | None, failed: int, is_over: bool) -> None:
    tally = Tally(PLAN, NOTHING)
    tally.add(receipt(0, failed=failed))
    assert tally.is_over(allowed) is is_over


def test_a_fraction_counts_from_a_thousand_rows_on() -> None:
    few = Survey(
        is_committed=np.zeros(4, np.bool_), totals=Totals(num_rows=999, num_failed=999), files=CommittedFiles(4)
    )
    assert not Tally(PLAN, few).is_over(MaxFailed(fraction=0.001))


def test_a_unit_that_ended_before_its_engine_was_known_to_be_ready_counts_with_its_own_time() -> None:
    now = [10.0]
    tally = Tally(PLAN, NOTHING, clock=lambda: now[0])
    tally.start_clock()
    tally.add(receipt(0))  # it took a second
    now[0] = 10.5
    assert tally.progress("running").seconds == 1.5
    assert tally.progress("running").tokens_per_s == 15 / 1.5


def test_tokens_that_were_cached_are_counted_apart() -> None:
    now = [10.0]
    tally = Tally(PLAN, NOTHING, clock=lambda: now[0])
    tally.start_clock()
    now[0] = 12.0
    tally.add(replace(receipt(0), cached_tokens=8))
    progress = tally.progress("running")
    assert (progress.tokens_per_s, progress.cached_tokens_per_s) == ((10 + 5 - 8) / 2, 8 / 2)


def test_no_speed_is_told_from_a_moment() -> None:
    now = [10.0]
    tally = Tally(PLAN, NOTHING, clock=lambda: now[0])
    tally.add(replace(receipt(0), seconds=0.0))
    now[0] += 4e-7
    progress = tally.progress("running")
    assert progress.rows_done == 1000
    assert (progress.tokens_per_s, progress.rows_per_s, progress.eta_s) == (None, None, None)
