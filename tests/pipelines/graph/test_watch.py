"""Engine deaths are counted from the journal, and three without a unit between them end a run."""

from pathlib import Path

import pytest

from models.engine.memory import MemoryPlan
from pipelines.errors import FleetError
from pipelines.graph import watch as watch_module
from pipelines.graph.watch import EngineWatch
from pipelines.io.local import LocalStore
from pipelines.io.outputs import Store
from pipelines.ledger.attempts import Attempt, Attempts, EngineStart
from pipelines.ledger.receipts import FOLDERS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = LocalStore.at(str(tmp_path / "out"))
    store.prepare(FOLDERS)
    return store


class Journal:
    """Engine starts as engines would write them."""

    def __init__(self, store: Store, epoch: int = 1) -> None:
        self.store, self.epoch, self.count = store, epoch, 0

    def start(self, replica: str = "0") -> Attempt:
        self.count += 1
        name = f"attempts/engine-{self.epoch}-{self.count:016x}.json"
        return Attempt(self.store, name, EngineStart(replica=replica, node="n", pid=self.count))


@pytest.fixture
def journal(store: Store) -> Journal:
    return Journal(store)


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "dead_workers", list)


def ticking(store: Store) -> EngineWatch:
    """A watch whose clock moves on by ten seconds at every look."""
    now = iter(range(0, 100_000, 10))
    return EngineWatch(Attempts(store, 1), clock=lambda: next(now))


def test_the_first_start_of_each_replica_is_no_death(store: Store, journal: Journal) -> None:
    watch = ticking(store)
    memory = MemoryPlan(num_shards=2, weights_bytes=100, cache_bytes=50, num_tokens=8, num_seqs=4)
    journal.start("0")
    journal.start("1").ready(memory)
    watch.look()
    assert watch.num_deaths == 0
    assert watch.is_any_ready
    assert watch.memory == memory


def test_a_restart_is_a_death(store: Store, journal: Journal) -> None:
    watch = ticking(store)
    for _ in range(3):
        journal.start()
    watch.look()
    assert watch.num_deaths == 2


def test_an_engine_that_said_why_is_dead_before_its_restart(store: Store, journal: Journal) -> None:
    watch = ticking(store)
    journal.start().fail("out of memory")
    watch.look()
    assert watch.num_deaths == 1


def test_three_deaths_without_a_unit_end_the_run_with_the_last_cause(store: Store, journal: Journal) -> None:
    watch = ticking(store)
    for _ in range(2):
        journal.start()
    journal.start().fail("RuntimeError: out of memory")
    journal.start()
    with pytest.raises(FleetError, match=r"3 engines died .* RuntimeError: out of memory"):
        watch.look()


def test_a_committed_unit_forgives_what_died_before(store: Store, journal: Journal) -> None:
    watch = ticking(store)
    for _ in range(3):
        journal.start()
    watch.look()
    watch.on_commit()
    for _ in range(2):
        journal.start()
    watch.look()
    assert watch.num_deaths == 4
    journal.start()
    with pytest.raises(FleetError):
        watch.look()


def test_engines_of_an_earlier_run_are_not_counted(store: Store) -> None:
    earlier = Journal(store, epoch=7)
    for _ in range(5):
        earlier.start()
    watch = ticking(store)
    watch.look()
    assert watch.num_deaths == 0


def test_a_cleared_journal_is_empty(store: Store, journal: Journal) -> None:
    journal.start()
    Journal(store, epoch=7).start()
    attempts = Attempts(store, 1)
    assert len(attempts.all()) == 1
    attempts.clear()
    assert attempts.all() == []
    assert list(store.sizes("attempts")) == []
