"""Replicas are owned from outside: what hangs is restarted, and what is gone leaves nothing behind."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine.owner import ReplicaOwner, ReplicaShape
from tests.helpers.shared_cluster import SHARED_CPUS

PATIENCE_S = 60.0
SHAPE = ReplicaShape(size=2, cpus=1, gpus=0, packing="STRICT_PACK", max_calls=1)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


class Shard:
    def pid(self) -> int:
        return os.getpid()


class Rank0:
    """Has another shard in the bundle beside it, and can be kept busy."""

    def __init__(self) -> None:
        group = get_current_placement_group()
        assert group is not None
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
        self._shard: Any = ray.remote(Shard).options(num_cpus=1, scheduling_strategy=strategy).remote()

    def pids(self) -> list[int]:
        return [os.getpid(), ray.get(self._shard.pid.remote())]

    def work(self, seconds: float) -> None:
        time.sleep(seconds)


def started(owner: ReplicaOwner) -> Any:
    return ray.remote(Rank0).options(num_cpus=1, max_restarts=-1, max_task_retries=-1, **owner.new_replica()).remote()


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def all_free() -> bool:
    resources: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU") == SHARED_CPUS and not any("group" in name for name in resources)


def test_rank_0_that_is_stopped_is_restarted_in_its_group_with_new_shards() -> None:
    with ReplicaOwner("stopped", SHAPE, timeout_s=2) as owner:
        actor = started(owner)
        before = ray.get(actor.pids.remote())
        time.sleep(2.5)  # it has answered once
        os.kill(before[0], signal.SIGSTOP)
        wait_for(lambda: not any(map(is_alive, before)), "the stopped replica is gone")
        after = ray.get(actor.pids.remote())
        assert not set(before) & set(after)
        del actor
    wait_for(all_free, "the bundles are free")


def test_one_that_is_busy_is_not_restarted() -> None:
    with ReplicaOwner("busy", SHAPE, timeout_s=1) as owner:
        actor = started(owner)
        before = ray.get(actor.pids.remote())
        ray.get(actor.work.remote(4))
        assert ray.get(actor.pids.remote()) == before
        del actor
    wait_for(all_free, "the bundles are free")


def test_the_group_of_a_replica_that_is_let_go_is_removed_while_others_stay() -> None:
    with ReplicaOwner("two", SHAPE, timeout_s=60) as owner:
        first, second = started(owner), started(owner)
        pids = [ray.get(actor.pids.remote()) for actor in (first, second)]
        time.sleep(2.5)
        del first
        wait_for(lambda: not any(map(is_alive, pids[0])), "the first is gone")
        wait_for(lambda: ray.available_resources().get("CPU") == SHARED_CPUS - 2, "its bundles are free")  # type: ignore[no-untyped-call]
        assert ray.get(second.pids.remote()) == pids[1]
        del second
    wait_for(all_free, "the bundles are free")


def test_an_owner_that_is_left_takes_everything_with_it() -> None:
    with ReplicaOwner("left", SHAPE, timeout_s=60) as owner:
        actors = [started(owner) for _ in range(3)]  # the third waits for room
        pids = [pid for actor in actors[:2] for pid in ray.get(actor.pids.remote())]
    wait_for(lambda: not any(map(is_alive, pids)), "all processes are gone")
    wait_for(all_free, "the bundles are free")
