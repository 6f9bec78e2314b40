"""Replicas are owned from outside: what hangs is restarted, there are as many as have something to do, and what is gone leaves nothing
behind.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.engine import owner as owner_module
from actors.engine import sizing
from actors.engine.owner import ReplicaOwner, ReplicaShape
from actors.engine.sizing import Bounds
from tests.helpers.actors.replicas import SHARD_CPUS, Loaded, Rank0, Unmakeable
from tests.helpers.shared_cluster import SHARED_CPUS

PATIENCE_S = 60.0
SHAPE = ReplicaShape(size=2, cpus=SHARD_CPUS, gpus=0, packing="STRICT_PACK")
ALONE = ReplicaShape(size=1, cpus=1, gpus=0, packing="STRICT_PACK")

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are looked at five times a second."""
    monkeypatch.setattr(owner_module, "PING_S", 0.2)


def owner_of(name: str, timeout_s: float) -> ReplicaOwner:
    return ReplicaOwner(name, SHAPE, Rank0, (), timeout_s=timeout_s)


def replicas(owner: ReplicaOwner, count: int) -> list[Any]:
    """Their actors, which are found by name as anybody finds them."""
    return [ray.get_actor(f"{owner.prefix}{number}") for number in range(count)]


def pids(actor: Any) -> list[int]:
    """The processes of a replica, once it is up."""
    found: list[int] = ray.get(actor.pids.options(max_task_retries=-1).remote())
    return found


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
    with owner_of("stopped", timeout_s=2) as owner:
        owner.start(1)
        [actor] = replicas(owner, 1)
        before = pids(actor)
        time.sleep(2.5)  # it has answered once
        os.kill(before[0], signal.SIGSTOP)
        wait_for(lambda: not any(map(is_alive, before)), "the stopped replica is gone")
        assert not set(before) & set(pids(actor))
        assert not owner.has_lost_one
    wait_for(all_free, "the bundles are free")


def test_one_that_is_busy_is_not_restarted() -> None:
    with owner_of("busy", timeout_s=1) as owner:
        owner.start(1)
        [actor] = replicas(owner, 1)
        before = pids(actor)
        ray.get(actor.work.remote(2.5))
        assert pids(actor) == before
    wait_for(all_free, "the bundles are free")


def test_one_that_there_is_no_work_for_is_let_go_while_others_stay() -> None:
    with owner_of("two", timeout_s=60) as owner:
        owner.start(2)
        first, second = replicas(owner, 2)
        kept, gone = pids(first), pids(second)
        owner.size_within(Bounds(least=1, most=1, calls_each=1))
        wait_for(lambda: not any(map(is_alive, gone)), "the second is gone")
        wait_for(lambda: ray.available_resources().get("CPU") == SHARED_CPUS - 2 * SHARD_CPUS, "its bundles are free")  # type: ignore[no-untyped-call]
        assert pids(first) == kept
        time.sleep(0.8)  # it is looked at again
        assert not owner.has_lost_one
    wait_for(all_free, "the bundles are free")


def test_an_owner_that_is_left_takes_everything_with_it() -> None:
    with owner_of("left", timeout_s=60) as owner:
        owner.start(3)  # the third waits for room
        found = [pid for actor in replicas(owner, 2) for pid in pids(actor)]
    wait_for(lambda: not any(map(is_alive, found)), "all processes are gone")
    wait_for(all_free, "the bundles are free")


def test_one_that_cannot_be_made_is_told() -> None:
    with ReplicaOwner("unmakeable", SHAPE, Unmakeable, (), timeout_s=60) as owner:
        owner.start(1)
        wait_for(lambda: owner.has_lost_one, "the loss is told")
        wait_for(all_free, "its bundles are free")


def test_there_are_as_many_as_have_something_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one to three with two calls each: three at first; idle, one; and full again, three."""
    monkeypatch.setattr(sizing, "PATIENCE", 2)

    def has(number: int) -> None:
        (tmp_path / "calls.new").write_text(str(number))
        (tmp_path / "calls.new").rename(tmp_path / "calls")

    def alive() -> set[int]:
        return {pid for path in tmp_path.glob("pid-*") if is_alive(pid := int(path.name.removeprefix("pid-")))}

    has(2)
    with ReplicaOwner("sized", ALONE, Loaded, (tmp_path,), timeout_s=60) as owner:
        owner.start(1)
        owner.size_within(Bounds(least=1, most=3, calls_each=2))
        wait_for(lambda: len(alive()) == 3, "three are up")
        has(0)
        wait_for(lambda: len(alive()) == 1, "two are let go")
        retired = {int(path.name.removeprefix("retired-")) for path in tmp_path.glob("retired-*")}
        assert len(retired) == 2
        assert not retired & alive()
        has(2)
        wait_for(lambda: len(alive()) == 3, "two more are up")
        assert not owner.has_lost_one
    wait_for(all_free, "everything is free")
