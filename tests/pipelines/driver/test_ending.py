"""What a run says when it ends."""

import numpy as np
import pyarrow as pa
import pytest

from pipelines.driver.ending import crossed
from pipelines.ledger.committed_files import CommittedFiles
from pipelines.ledger.ledger import Survey
from pipelines.ledger.receipts import Receipt, Shard, Totals
from pipelines.ledger.tally import Tally
from pipelines.units.planning import Plan

PLAN = Plan(schema=pa.schema([]), num_files=1, num_units=2, num_rows=200, num_bytes=1, unit_rows=100)
ROWS = "max_failed was crossed: 100 of 200 rows committed, 10 of them as dead letters"


@pytest.mark.parametrize(
    ("cached", "message"),
    [
        (0, f"{ROWS}; raise max_failed to go on"),
        (4240, f"{ROWS}; 4,700 tokens computed, 4,240 cached; raise max_failed to go on"),
    ],
)
def test_tokens_that_were_cached_are_told_apart_from_computed_ones(cached: int, message: str) -> None:
    files = CommittedFiles(2)
    tally = Tally(PLAN, Survey(is_committed=np.zeros(2, np.bool_), totals=Totals(), files=files))
    tally.add(
        Receipt(
            unit=0,
            epoch=1,
            num_rows=100,
            num_written=90,
            num_failed=10,
            prompt_tokens=8000,
            cached_tokens=cached,
            completion_tokens=940,
            seconds=1.0,
            data=Shard.of("data", 0, 1, "parquet", b"x"),
            errors=Shard.of("errors", 0, 1, "jsonl", b""),
        )
    )
    assert crossed(tally).message == message
