"""Kills on the real thing, one of each kind: whatever dies, the next run or the same one writes what the engine alone answers. Runs with
clusters of their own, and their output byte for byte, are in `tests/faults`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from tests.helpers.pipelines.killing import ENGINE, GENERATE, UNIT_ROWS, WORKERS, Bench, Run, wait_until
from tests.helpers.pipelines.running import receipts, short_folder

NUM_ROWS = 480

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path], temp: Path) -> Bench:
    return Bench(
        tmp_path_factory.mktemp("kills"),
        tiny_checkpoint("causal"),
        temp,
        task=GENERATE,
        num_rows=NUM_ROWS,
        address=ray.get_runtime_context().gcs_address,
    )


def test_whatever_is_killed_nothing_is_lost(bench: Bench) -> None:
    """One output folder through it all: a killed driver, a Ctrl-C, two copies at once of which one is turned away, and below the other a
    killed engine and killed workers."""
    out = bench.out("killed")
    with bench.start("killed") as run:
        run.wait_for_commits(6)
        run.kill_driver()
    before = receipts(out)
    with bench.start("killed") as run:
        run.wait_for_commits(len(before) + 6)
        run.interrupt()
        assert run.wait() == 130
    assert {name: receipts(out)[name] for name in before} == before
    before = receipts(out)
    assert len(before) < NUM_ROWS / UNIT_ROWS
    with bench.start("killed") as first, bench.start("killed") as second:
        run = the_other_of(first, second)
        run.wait_for_commits(len(before) + 6)
        assert len(run.kill_below(ENGINE)) == 1
        run.wait_for_commits(run.num_committed + 6)
        assert run.kill_below(WORKERS)
        assert run.wait() == 0, run.output
    assert {name: receipts(out)[name] for name in before} == before
    bench.check_texts("killed")


def the_other_of(first: Run, second: Run) -> Run:
    """Whichever of two runs into one folder was not turned away."""
    wait_until(lambda: first.has_ended or second.has_ended, "one of the runs to be turned away")
    refused, other = (first, second) if first.has_ended else (second, first)
    assert refused.wait() == 1, refused.output
    assert "another run holds" in refused.output
    return other
