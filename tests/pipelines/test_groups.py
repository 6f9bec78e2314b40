"""Replicas of two shards on a cluster of three nodes: the output of one process, whatever happens to a shard, and nothing left over."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from pipelines.chatter import quiet_ray
from pipelines.job import EngineSpec, Job
from pipelines.progress import Progress
from tests.pipelines.killing import Process, below, wait_until
from tests.pipelines.running import GREEDY, contents, drive, job_of, short_folder, write_corpus

NUM_ROWS, UNIT_ROWS = 320, 8
SHARD, RANK_0 = "ray::ShardActor", "ray::MapWorker(MapBatches(InferUnits))"
STEP_TIMEOUT_S = 5.0
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that has room for reading and committing, and two nodes with room for a replica of two shards each."""
    with short_folder() as folder, quiet_ray() as chatter:
        head = {"num_cpus": 1, "_system_config": QUICK_TO_NOTICE, "temp_dir": str(folder), "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=3)
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            chatter.move_to_session()
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]


class Bench:
    """One generation job, run over shards into folders of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder, self._model = folder, model
        self._corpus = write_corpus(folder / "rows.jsonl", NUM_ROWS)

    def job(self, name: str, **engine: int) -> Job:
        return job_of(
            GREEDY,
            model=self._model,
            corpus=self._corpus,
            out=self.out(name),
            unit_rows=UNIT_ROWS,
            engine=EngineSpec(num_cpus=1, max_num_seqs=16, step_timeout_s=STEP_TIMEOUT_S, **engine),
        )

    def out(self, name: str) -> Path:
        return self._folder / name


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[..., Path]) -> Bench:
    return Bench(tmp_path_factory.mktemp("groups"), tiny_checkpoint("causal"))


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster, bench: Bench) -> dict[str, bytes]:
    """What one process writes."""
    assert drive(bench.job("alone")).exit_status == 0
    return contents(bench.out("alone"))


class Disturbing(list[Progress]):
    """Does something to the run once, when so many units are committed."""

    def __init__(self, units: int, disturb: Callable[[], None]) -> None:
        super().__init__()
        self._units, self._disturb = units, disturb

    def append(self, progress: Progress) -> None:
        super().append(progress)
        if progress.units_done >= self._units:
            self._units = NUM_ROWS
            self._disturb()


def ours() -> list[Process]:
    """Processes of replicas below this one."""
    return [process for process in below(os.getpid()) if process.title.startswith((SHARD, RANK_0))]


def signalled(title: str, number: int) -> Callable[[], None]:
    """Sends a signal to one process of that title."""

    def disturb() -> None:
        found = [process for process in ours() if process.title.startswith(title)]
        assert found, f"no {title} among {[process.title for process in below(os.getpid())]}"
        os.kill(found[0].pid, number)

    return disturb


def removed_node(cluster: Cluster, bench: Bench, name: str) -> Callable[[], None]:
    """Takes away the node that rank 0 runs on, and puts an empty one in its place."""

    def disturb() -> None:
        (start,) = (json.loads(path.read_bytes()) for path in (bench.out(name) / "attempts").glob("engine-*.json"))
        node = next(node for node in cluster.worker_nodes if node.node_id == start["node"])
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=3)

    return disturb


def free() -> dict[str, float]:
    """What nobody uses, without the names of nodes."""
    found: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return {name: count for name, count in found.items() if name in ("CPU", "GPU") or "group" in name}


@pytest.mark.parametrize("what", ["nothing", "a shard killed", "rank 0 killed", "a shard stopped", "a node removed"])
def test_whatever_happens_to_a_shard_the_output_is_that_of_one_process(
    cluster: Cluster, bench: Bench, undisturbed: dict[str, bytes], what: str
) -> None:
    before = free()
    name = what.replace(" ", "-")
    disturb = {
        "nothing": lambda: None,
        "a shard killed": signalled(SHARD, signal.SIGKILL),
        "rank 0 killed": signalled(RANK_0, signal.SIGKILL),
        "a shard stopped": signalled(SHARD, signal.SIGSTOP),
        "a node removed": removed_node(cluster, bench, name),
    }[what]
    seen = Disturbing(5, disturb)
    summary = drive(bench.job(name, tensor_parallel_size=2), seen=seen)
    assert summary.exit_status == 0, summary.message
    assert summary.progress.units_done == NUM_ROWS / UNIT_ROWS
    assert contents(bench.out(name)) == undisturbed
    assert (max(progress.engine_restarts for progress in seen) > 0) == (what != "nothing")
    assert any(progress.memory is not None and progress.memory.num_shards == 2 for progress in seen)
    wait_until(lambda: not ours(), "the processes of the replica to be gone")
    wait_until(lambda: free() == before, f"the resources to be free again: {free()} of {before}")
