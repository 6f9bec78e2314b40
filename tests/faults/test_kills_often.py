"""Kills of every kind in every kind of job, at moments drawn from a seed: many minutes (make faults)."""

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from models.config.types import Head
from tests.helpers.pipelines.killing import ENGINE, GENERATE, UNIT_ROWS, WORKERS, Bench
from tests.helpers.pipelines.running import contents, receipts, rows_in, short_folder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NUM_ROWS = 1200
TASKS: Mapping[str, tuple[Head, Mapping[str, object]]] = {
    "classify": ("sequence-classification", {"kind": "classify", "text": "{{ body }}"}),
    "extract": ("token-classification", {"kind": "extract", "text": "{{ body }}"}),
    "generate": ("causal", GENERATE),
    "cascade": ("sequence-classification", {"kind": "classify", "text": "{{ body }}"}),
}
MOMENTS = sorted(random.Random(20261).sample(range(1, NUM_ROWS // UNIT_ROWS - 40), 3))


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module", params=sorted(TASKS))
def bench(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Callable[..., Path],
    temp: Path,
) -> Bench:
    head, task = TASKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    if request.param != "cascade":
        return Bench(folder, tiny_checkpoint(head), temp, task=task, num_rows=NUM_ROWS)
    small, large = (tiny_checkpoint(head, hidden_size=size, initializer_range=0.4) for size in (32, 64))
    return Bench(folder, small, temp, task=task, num_rows=NUM_ROWS, further=large)


@pytest.fixture(scope="module")
def undisturbed(bench: Bench) -> dict[str, bytes]:
    with bench.start("whole") as run:
        assert run.wait() == 0, run.output
    models = {row.get("model") for row in rows_in(bench.out("whole"))}
    assert len(models) == (1 if bench.further is None else 2), "both models of a cascade have something to answer"
    return contents(bench.out("whole"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_driver_loses_nothing(bench: Bench, undisturbed: dict[str, bytes], moment: int) -> None:
    name = f"driver-{moment}"
    with bench.start(name) as run:
        run.wait_for_commits(moment)
        run.kill_driver()
    before = receipts(bench.out(name))
    with bench.start(name) as run:
        assert run.wait() == 0, run.output
    assert {unit: receipts(bench.out(name))[unit] for unit in before} == before
    bench.check(name, undisturbed)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("titles", [ENGINE, WORKERS, ENGINE + WORKERS], ids=["engine", "workers", "both"])
def test_killed_processes_lose_nothing(
    bench: Bench, undisturbed: dict[str, bytes], titles: tuple[str, ...], moment: int
) -> None:
    name = f"below-{len(titles)}-{moment}"
    with bench.start(name) as run:
        run.wait_for_commits(moment)
        killed = run.kill_below(titles)
        assert killed or moment > MOMENTS[0], "only later may an engine have computed all there is"
        assert run.wait() == 0, run.output
    bench.check(name, undisturbed)


def test_a_driver_killed_again_and_again_comes_to_the_end(bench: Bench, undisturbed: dict[str, bytes]) -> None:
    out = bench.out("again")
    committed: dict[str, tuple[int, int]] = {}
    for _ in range(4):
        with bench.start("again") as run:
            run.wait_for_commits(len(committed) + 15)
            run.kill_driver()
        assert {unit: receipts(out)[unit] for unit in committed} == committed
        committed = receipts(out)
    with bench.start("again") as run:
        assert run.wait() == 0, run.output
    bench.check("again", undisturbed)


def test_a_driver_killed_before_its_first_unit_leaves_the_folder_free(
    bench: Bench, undisturbed: dict[str, bytes]
) -> None:
    with bench.start("early") as run:
        run.wait_for_plan()
        run.kill_driver()
    with bench.start("early") as run:
        assert run.wait() == 0, run.output
    bench.check("early", undisturbed)
