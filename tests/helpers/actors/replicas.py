"""Replicas that compute nothing. A module that imports little: Ray starts them in process after process."""

import asyncio
import os
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine.load import CallLoad, EngineLoad
from tests.helpers.shared_cluster import SHARED_CPUS

SHARD_CPUS = SHARED_CPUS / 4
"""Of a shard: two replicas of two take the whole cluster."""


class Shard:
    def pid(self) -> int:
        return os.getpid()


class Rank0:
    """Has another shard in the bundle beside it, and can be kept busy."""

    def __init__(self) -> None:
        group = get_current_placement_group()
        assert group is not None
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=1)
        self._shard: Any = ray.remote(Shard).options(num_cpus=SHARD_CPUS, scheduling_strategy=strategy).remote()

    def pids(self) -> list[int]:
        return [os.getpid(), ray.get(self._shard.pid.remote())]

    async def work(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def load(self) -> EngineLoad:
        return EngineLoad(process=str(os.getpid()))

    def retire(self) -> None:
        raise AssertionError("nobody asks for fewer")


class Loaded:
    """Has as many calls as it was told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / f"pid-{os.getpid()}").touch()

    def pid(self) -> int:
        return os.getpid()

    def load(self) -> EngineLoad:
        call = CallLoad(name="call", num_requests=1, num_answered=0)
        return EngineLoad(process=str(os.getpid()), calls=(call,) * int((self._folder / "calls").read_text()))

    def retire(self) -> None:
        (self._folder / f"retired-{os.getpid()}").touch()


class Unmakeable:
    def __init__(self) -> None:
        raise RuntimeError("no room for the weights")

    def load(self) -> EngineLoad:
        raise AssertionError("it was never made")

    def retire(self) -> None:
        raise AssertionError("it was never made")
