"""Several replicas: all start at once, each gets its share, and a slow one does not hold what others could do."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.connect import room_on
from pipelines.graph.graph import fair_calls
from pipelines.job import EngineSpec, Job
from pipelines.tasks.classify import ClassifyTask
from tests.helpers.pipelines.fake_engines import one_slow_engine, signing_engine
from tests.helpers.pipelines.running import drive, job_of, rows_in, write_corpus

CLASSIFY = ClassifyTask(text="{{ body }}")
UNIT_ROWS = 10

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture
def job(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., Job]:
    """A function (units, **engine options) -> job on a checkpoint folder of its own."""
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_checkpoint("sequence-classification", num_labels=2).iterdir():
        (model / path.name).symlink_to(path)

    def make(num_units: int, **engine: Any) -> Job:
        corpus = write_corpus(tmp_path / "rows.jsonl", num_units * UNIT_ROWS)
        return job_of(
            CLASSIFY,
            model=model,
            corpus=corpus,
            out=tmp_path / "out",
            unit_rows=UNIT_ROWS,
            engine=EngineSpec(num_cpus=0.5, **engine),
        )

    return make


def started(job: Job) -> int:
    return len(list(Path(job.model.path).glob("started-*")))


def answered(job: Job) -> Counter[str]:
    """How many units each engine has answered."""
    return Counter(path.name.split("-")[1] for path in Path(job.model.path).glob("answered-*"))


def test_the_first_engine_to_be_ready_does_not_take_the_work_of_the_others(job: Callable[..., Job]) -> None:
    small = job(6, replicas=3)
    assert drive(small, make_engine=partial(one_slow_engine, patience=4)).exit_status == 0
    assert answered(small).total() == 6
    assert max(int(path.name.split("-")[1]) for path in Path(small.model.path).glob("held-*")) <= 2


@pytest.mark.parametrize(
    ("num_units", "engines"), [(1, 1), *(pytest.param(*each, marks=pytest.mark.faults) for each in ((2, 2), (12, 3)))]
)
def test_there_are_no_more_engines_than_there_is_work_for(
    job: Callable[..., Job], num_units: int, engines: int
) -> None:
    """There may be fewer: the first may have done it all before another is up."""
    scaled = job(num_units, replicas=1, max_replicas=3)
    assert drive(scaled, make_engine=signing_engine).exit_status == 0
    assert 1 <= started(scaled) <= engines
    assert answered(scaled).total() == num_units


@pytest.mark.faults
def test_a_slow_engine_leaves_the_work_to_the_others(job: Callable[..., Job]) -> None:
    """As above, where the slow one waits for four units of six, over more of them."""
    uneven = job(60, replicas=3)
    assert drive(uneven, make_engine=partial(one_slow_engine, patience=50)).exit_status == 0
    assert len(rows_in(Path(uneven.output.path))) == 60 * UNIT_ROWS
    counts = answered(uneven)
    assert counts.total() == 60
    assert counts[(Path(uneven.model.path) / "slow").read_text()] <= 10  # of 20, if all had as many


@pytest.mark.parametrize(("num_units", "calls"), [(1, 1), (3, 1), (6, 2), (7, 3), (1000, 3)])
def test_an_engine_is_given_its_share_of_what_there_is(job: Callable[..., Job], num_units: int, calls: int) -> None:
    shared = job(1, replicas=3)
    assert fair_calls(shared, room_on(shared.engine, [{"CPU": 8}]), num_units) == calls


def test_no_more_engines_than_the_cluster_has_room_for() -> None:
    engine = EngineSpec(num_cpus=1, replicas=1, max_replicas=10)
    assert room_on(engine, [{"CPU": 5}]).max_replicas == 4
    assert room_on(replace(engine, tensor_parallel_size=2), [{"CPU": 5}]).max_replicas == 2
