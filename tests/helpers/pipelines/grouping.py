"""Replicas of two shards on a cluster of this machine, that of the tests or one of three nodes, and what can happen to them in mid-run."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from pipelines.cluster.ray_output import quiet_ray
from pipelines.job import EngineSpec, Job
from pipelines.ledger.progress import Progress
from tests.helpers.pipelines.killing import Process, below, wait_until
from tests.helpers.pipelines.running import GREEDY, contents, drive, job_of, short_folder, write_corpus

NUM_ROWS, UNIT_ROWS = 256, 8
LONG = replace(GREEDY, sampling=replace(GREEDY.sampling, max_tokens=48, ignore_eos=True))
"""What all rows are asked: so many tokens that most rows are still to come when a disturbance at some unit is noticed."""
SHARD, RANK_0 = "ray::ShardActor", "ray::EngineActor"
STEP_TIMEOUT_S = 10.0
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def three_nodes() -> Iterator[Cluster]:
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
    """One generation job, run over shards into folders of its own, on the cluster that this process is connected to; `cluster` is that,
    where it has nodes to take away. `expected` is what one process writes."""

    def __init__(self, folder: Path, model: Path, cluster: Cluster | None = None) -> None:
        self.cluster, self._folder, self._model = cluster, folder, model
        self._corpus = write_corpus(folder / "rows.jsonl", NUM_ROWS)
        assert drive(self.job("alone")).exit_status == 0
        self.expected = contents(self.out("alone"))

    def job(self, name: str, **engine: Any) -> Job:
        return job_of(
            LONG,
            model=self._model,
            corpus=self._corpus,
            out=self.out(name),
            unit_rows=UNIT_ROWS,
            engine=EngineSpec(num_cpus=1, max_num_seqs=16, step_timeout_s=STEP_TIMEOUT_S, **engine),
        )

    def out(self, name: str) -> Path:
        return self._folder / name


@contextmanager
def bench_of(folder: Path, model: Path) -> Iterator[Bench]:
    """A bench on three nodes, for as long as the block lasts."""
    with three_nodes() as cluster:
        yield Bench(folder, model, cluster)


class Disturbing(list[Progress]):
    """Does something to the run once, when it has committed so many units itself."""

    def __init__(self, units: int, disturb: Callable[[], None]) -> None:
        super().__init__()
        self._units, self._disturb = units, disturb

    def append(self, progress: Progress) -> None:
        super().append(progress)
        if progress.units_done - progress.units_resumed >= self._units:
            self._units = NUM_ROWS  # never again
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


def removed_node(bench: Bench, name: str) -> Callable[[], None]:
    """Takes away the node that rank 0 runs on, and puts an empty one in its place."""

    def disturb() -> None:
        assert bench.cluster is not None, "the cluster that tests share keeps its node"
        (start,) = (json.loads(path.read_bytes()) for path in (bench.out(name) / "attempts").glob("engine-*.json"))
        node = next(node for node in bench.cluster.worker_nodes if node.node_id == start["node"])
        bench.cluster.remove_node(node, allow_graceful=False)
        bench.cluster.add_node(num_cpus=3)

    return disturb


def is_all_free() -> bool:
    """Whether nobody uses a CPU of the cluster or a bundle of a group."""
    available, whole = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
    return available.get("CPU") == whole.get("CPU") and not any("group" in name for name in available)


def interrupted() -> None:
    """Ctrl-C in this process."""
    raise KeyboardInterrupt


def disturbances(bench: Bench, name: str) -> Mapping[str, Callable[[], None]]:
    """What can happen to the run `name`."""
    return {
        "nothing": lambda: None,
        "shard killed": signalled(SHARD, signal.SIGKILL),
        "rank 0 killed": signalled(RANK_0, signal.SIGKILL),
        "shard stopped": signalled(SHARD, signal.SIGSTOP),
        "rank 0 stopped": signalled(RANK_0, signal.SIGSTOP),
        "node removed": removed_node(bench, name),
    }


def check_disturbed(bench: Bench, what: str, *, units: int, name: str = "") -> None:
    """Runs the job over two shards, or goes on with it in the folder `name`, while `what` happens after so many of its units: the output is
    `bench.expected`, and nothing is left over."""
    name = name or f"{what.replace(' ', '-')}-{units}"
    seen = Disturbing(units, disturbances(bench, name)[what])
    summary = drive(bench.job(name, tensor_parallel_size=2), seen=seen)
    assert summary.exit_status == 0, summary.message
    assert summary.progress.units_done == NUM_ROWS / UNIT_ROWS
    assert contents(bench.out(name)) == bench.expected
    assert what == "nothing" or max(progress.engine_restarts for progress in seen) > 0
    assert any(progress.memory is not None and progress.memory.num_shards == 2 for progress in seen)
    check_released()


def check_released() -> None:
    """No process of a replica is left, and every CPU is free."""
    wait_until(lambda: not ours(), "the processes of the replica to be gone")
    wait_until(is_all_free, "everything to be free again")
