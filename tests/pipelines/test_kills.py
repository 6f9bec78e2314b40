"""Kills on the real thing, one of each kind: whatever dies, the next run or the same one writes what an undisturbed run writes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipelines.killing import ENGINE, GENERATE, UNIT_ROWS, WORKERS, Bench
from tests.pipelines.running import contents, receipts, short_folder

NUM_ROWS = 1200


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path], temp: Path) -> Bench:
    return Bench(tmp_path_factory.mktemp("kills"), tiny_checkpoint("causal"), temp, task=GENERATE, num_rows=NUM_ROWS)


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    """What a run writes that nobody disturbs, but for a second copy of the job started together with it: one of them is turned away."""
    with bench.start("whole") as first, bench.start("whole") as second:
        outputs = {run.wait(): run.output for run in (first, second)}
    assert sorted(outputs) == [0, 1], outputs
    assert "another run holds" in outputs[1]
    return contents(bench.out("whole"))


def test_a_killed_driver_and_a_ctrl_c_lose_nothing(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    out = bench.out("driver")
    with bench.start("driver") as run:
        run.wait_for_commits(20)
        run.kill_driver()
    before = receipts(out)
    with bench.start("driver") as run:
        run.wait_for_commits(len(before) + 20)
        run.interrupt()
        assert run.wait() == 130
    assert {name: receipts(out)[name] for name in before} == before
    before = receipts(out)
    assert len(before) < NUM_ROWS / UNIT_ROWS
    with bench.start("driver") as run:
        assert run.wait() == 0, run.output
    assert {name: receipts(out)[name] for name in before} == before
    bench.check("driver", undisturbed)


def test_a_killed_engine_loses_nothing(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    with bench.start("engine") as run:
        run.wait_for_commits(20)
        assert len(run.kill_below(ENGINE)) == 1
        assert run.wait() == 0, run.output
    bench.check("engine", undisturbed)


def test_killed_workers_lose_nothing(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    with bench.start("workers") as run:
        run.wait_for_commits(20)
        assert run.kill_below(WORKERS)
        assert run.wait() == 0, run.output
    bench.check("workers", undisturbed)
