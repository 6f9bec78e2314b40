"""The shards of a replica as Ray actors: one a bundle of the placement group that rank 0 runs in.

Rank 0 is any actor whose placement group has a bundle a shard: an engine under Ray Data, whose group the driver owns
(`actors.engine.owner`), or a replica under Serve, whose group Serve owns. What it starts here belongs to it: the shards are gone once rank
0 is gone, however it ended, and rank 0 is told when a shard is.
"""

import threading
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.util import get_node_ip_address
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.work import EngineSettings, OnFailure
from models.engine.follower import follow
from models.engine.shard_processes import END_S, ShardWork, StartShards, tell_to_end
from models.errors import EngineError
from models.loading.choices import choose_device
from models.parallel.rendezvous import Invitation, Meeting, leave
from models.parallel.tensor_parallel import TensorParallel

LOOK_S = 1.0


class ShardActor:
    """One rank other than 0, in a process and a bundle of its own."""

    def follow(self, work: ShardWork, settings: EngineSettings, invitation: Invitation) -> None:
        """Computes what rank 0 calls for, until that says that it is done; see `models.engine.follower`. The invitation goes from
        rank 0's process to this one and nowhere else: Ray keeps the arguments of an actor's start for its restart, not a call's."""
        work = replace(work, load={**work.load, "path": settings.find().folder})
        follow(work, invitation)


class GroupShards:
    """The ranks 1 to `size` - 1 of the replica whose rank 0 is this process, each like it in a bundle of its own."""

    def __init__(self, work: ShardWork, size: int, *, settings: EngineSettings, on_lost: OnFailure) -> None:
        """Starts the actors. `on_lost` is called from a thread of its own, once, when a shard
        ends unasked.

        Raises:
            EngineError: this process is in no placement group, or in one of another size.
        """
        group = get_current_placement_group()
        num_bundles = 0 if group is None else group.bundle_count
        if group is None or num_bundles != size:
            raise EngineError(
                f"a model of {size} shards needs a placement group with a bundle for each; this process has {num_bundles}"
            )
        self._device = choose_device(work.load["device"])
        self._meeting = Meeting.open(get_node_ip_address(), size)  # type: ignore[no-untyped-call]
        self._tp: TensorParallel | None = None
        self._actors: list[Any] = []
        self._ends: dict[Any, int] = {}  # what each was asked, and its rank
        for rank, bundle in list(enumerate(group.bundle_specs))[1:]:
            actor: Any = (
                ray.remote(ShardActor)
                .options(
                    num_cpus=bundle.get("CPU", 0),
                    num_gpus=bundle.get("GPU", 0),
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
                )
                .remote()
            )
            self._actors.append(actor)
            self._ends[actor.follow.remote(work, settings, self._meeting.invitation(rank))] = rank
        self._is_ending, self._on_lost = threading.Event(), on_lost
        threading.Thread(target=self._watch, name="millrace-shards", daemon=True).start()

    def join(self) -> TensorParallel:
        self._tp = self._meeting.join(self._device, check=self._check)
        return self._tp

    def close(self) -> None:
        self._is_ending.set()
        if self._tp is not None:
            tell_to_end(self._tp)
            ray.wait(list(self._ends), num_returns=len(self._ends), timeout=END_S)
        self.kill()

    def kill(self) -> None:
        self._is_ending.set()
        self._meeting.close()
        for actor in self._actors:
            ray.kill(actor)
        if self._tp is not None:
            leave(self._tp)
            self._tp = None

    def _watch(self) -> None:
        while not self._is_ending.is_set():
            lost = self._lost(LOOK_S)
            if lost is not None and not self._is_ending.is_set():
                self._on_lost(lost)
                return

    def _check(self) -> None:
        lost = self._lost(0)
        if lost is not None:
            raise EngineError(lost)

    def _lost(self, timeout_s: float) -> str | None:
        """Why a shard has ended, if one has within `timeout_s`."""
        ended, _ = ray.wait(list(self._ends), num_returns=1, timeout=timeout_s)
        if not ended:
            return None
        try:
            ray.get(ended[0])
        except ray.exceptions.RayError as error:
            return f"shard {self._ends[ended[0]]} is lost: {_with_cause(error)}"
        return f"shard {self._ends[ended[0]]} ended before it was told to"


def group_shards(settings: EngineSettings, on_lost: OnFailure) -> StartShards:
    """How an engine of these settings starts its shards on a cluster."""
    return partial(GroupShards, settings=settings, on_lost=on_lost)


def _with_cause(error: ray.exceptions.RayError) -> str:
    if isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        return f"{type(error.cause).__name__}: {error.cause}"
    return str(error).partition(" Some common causes")[0]
