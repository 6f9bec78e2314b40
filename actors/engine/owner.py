"""Who owns the replicas of a run from outside: makes their placement groups, notices those that hang, and lets go of all of them.

A placement group that rank 0 makes itself outlives it, and nobody within a replica can end a process of it that is stopped. So the
driver owns them; under Serve its controller does.
"""

import itertools
import logging
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

logger = logging.getLogger(__name__)

PING_S = 1.0

Packing = Literal["STRICT_PACK", "PACK"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaShape:
    """What a replica takes: `size` shards of `cpus` and `gpus` each, on one node or across nodes; rank 0 takes `max_calls` at a
    time."""

    size: int
    cpus: float
    gpus: float
    packing: Packing
    max_calls: int

    @property
    def bundles(self) -> list[dict[str, float]]:
        """One a shard, as placement groups take them."""
        resources = {"CPU": self.cpus, "GPU": self.gpus}
        return [{name: count for name, count in resources.items() if count} for _ in range(self.size)]


class _Replica:
    """Rank 0 by its name, its placement group if it has one, and the question it was last asked."""

    def __init__(self, name: str, group: PlacementGroup | None) -> None:
        self.name, self.group = name, group
        self.was_found = False
        self.has_answered = False  # since it last started
        self.question: ray.ObjectRef[None] | None = None
        self.asked_at = 0.0


class ReplicaOwner:
    """Owns the replicas that are started with `new_replica`'s options, until the context ends.

    A thread asks every rank 0 now and then whether it is there. One that was and does not answer for `timeout_s` is killed, and Ray
    restarts it in its group; the group of one that is gone for good is removed.
    """

    def __init__(self, name: str, shape: ReplicaShape, *, timeout_s: float) -> None:
        """`name` stands before the replicas' own in the cluster, and must be used by no other owner of this driver."""
        self._name, self._shape, self._timeout_s = name, shape, timeout_s
        self._numbers = itertools.count()
        self._replicas: list[_Replica] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="millrace-owner", daemon=True)

    def __enter__(self) -> "ReplicaOwner":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._thread.join()
        for replica in self._replicas:
            _remove(replica)

    def new_replica(self) -> dict[str, Any]:
        """The options of an actor that is to be rank 0 of a new replica. It has one call more than `max_calls` at a time, for the
        owner's questions."""
        name = f"millrace/{self._name}/{next(self._numbers)}"
        options: dict[str, Any] = {"name": name, "max_concurrency": self._shape.max_calls + 1}
        group = None
        if self._shape.size > 1:
            group = placement_group(self._shape.bundles, strategy=self._shape.packing, name=name)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        with self._lock:
            self._replicas.append(_Replica(name, group))
        return options

    def _watch(self) -> None:
        while not self._is_closed.wait(PING_S):
            with self._lock:
                replicas = list(self._replicas)
            for replica in replicas:
                try:
                    self._look(replica)
                except (
                    ray.exceptions.RayError
                ) as error:  # the cluster is shaky; the run's own loop will notice if it is gone
                    logger.debug("%s could not be looked at: %s", replica.name, error)

    def _look(self, replica: _Replica) -> None:
        try:
            actor = ray.get_actor(replica.name)
        except ValueError:  # not there yet, or no more
            if replica.was_found:
                self._forget(replica)
            return
        replica.was_found = True
        if replica.question is not None and not _take_answer(replica, replica.question):
            waited = time.monotonic() - replica.asked_at
            if not replica.has_answered or waited < self._timeout_s:
                return
            logger.warning("%s has not answered for %.0f s and is restarted", replica.name, waited)
            replica.has_answered = False
            ray.kill(actor, no_restart=False)
        replica.question = actor.__ray_ready__.options(max_task_retries=0).remote()
        replica.asked_at = time.monotonic()

    def _forget(self, replica: _Replica) -> None:
        with self._lock:
            self._replicas.remove(replica)
        _remove(replica)


def _take_answer(replica: _Replica, question: "ray.ObjectRef[None]") -> bool:
    """Whether the last question is settled, by an answer or because the one who was asked is no more."""
    answered, _ = ray.wait([question], timeout=0)
    if not answered:
        return False
    try:
        ray.get(question)
        replica.has_answered = True
    except ray.exceptions.RayActorError:
        replica.has_answered = False
    return True


def _remove(replica: _Replica) -> None:
    """Gives back a replica's bundles; what still runs in them is killed."""
    if replica.group is not None:
        remove_placement_group(replica.group)
