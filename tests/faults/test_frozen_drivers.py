"""A driver that stands still for longer than a lease lasts, alone or with its whole cluster, and finds its lease untaken: it goes on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.pipelines.killing import GENERATE, Bench
from tests.helpers.pipelines.running import receipts, short_folder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NUM_ROWS = 1200
STILL_S = 30.0


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.mark.parametrize("with_cluster", [False, True], ids=["driver", "machine"])
def test_a_run_that_stood_still_goes_on(
    with_cluster: bool, tmp_path: Path, tiny_checkpoint: Callable[..., Path], temp: Path
) -> None:
    bench = Bench(tmp_path, tiny_checkpoint("causal"), temp, task=GENERATE, num_rows=NUM_ROWS)
    out = bench.out("still")
    with bench.start("still") as run:
        run.wait_for_commits(15)
        run.stand_still(STILL_S, with_cluster=with_cluster)
        assert len(receipts(out)) < NUM_ROWS / 8, "there was nothing left to go on with"
        assert run.wait() == 0, run.output
    assert json.loads((out / "lease.json").read_bytes())["epoch"] == 1
    bench.check_texts("still")
