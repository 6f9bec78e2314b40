"""Who owns the replicas of a run: starts them, notices those that hang or are gone, and lets go of all of them.

A placement group that rank 0 makes itself outlives it, and no process of a replica can end another
one that is stopped. So the driver owns replicas; under Serve its controller does. A replica is
found by its name.
"""

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine.load import EngineLoad
from actors.engine.sizing import Bounds, Sizing

logger = logging.getLogger(__name__)

PING_S = 1.0

Packing = Literal["STRICT_PACK", "PACK"]


class Replica(Protocol):
    """What the class of an actor needs that is rank 0 of a replica."""

    def load(self) -> EngineLoad:
        """The calls that it is at work on."""
        ...

    def retire(self) -> None:
        """Has it take no more."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplicaShape:
    """What a replica takes: `size` shards of `cpus` and `gpus` each, on one node or across nodes."""

    size: int
    cpus: float
    gpus: float
    packing: Packing

    @property
    def bundles(self) -> list[dict[str, float]]:
        """One per shard, as placement groups take them."""
        resources = {"CPU": self.cpus, "GPU": self.gpus}
        return [{name: count for name, count in resources.items() if count} for _ in range(self.size)]


class _Owned:
    """Rank 0 of a replica, its placement group if it has one, and the question it was last asked."""

    def __init__(self, name: str, actor: Any, group: PlacementGroup | None) -> None:
        self.name, self.actor, self.group = name, actor, group
        self.load: EngineLoad | None = None  # what it last answered, since it last started
        self.is_retired = False
        self.is_gone = False
        self.question: ray.ObjectRef[EngineLoad] | None = None
        self.asked_at = 0.0

    @property
    def num_calls(self) -> int | None:
        """How many calls it has, None if it has not answered since it last started."""
        return None if self.load is None else len(self.load.calls)

    def ask(self) -> None:
        self.question = self.actor.load.options(max_task_retries=0).remote()
        self.asked_at = time.monotonic()

    def take_answer(self) -> bool:
        """Whether the last question is settled: it was answered, or the replica that was asked has
        died. Ray then starts another, unless the replica is gone for good."""
        if self.question is None:
            return True
        answered, _ = ray.wait([self.question], timeout=0)
        if not answered:
            return False
        try:
            self.load = ray.get(self.question)
        except ray.exceptions.RayActorError as error:
            self.load, self.is_gone = None, isinstance(error, ray.exceptions.ActorDiedError)
        return True

    def retire(self) -> None:
        """Has it take no more: it is to end once it has done what it has, which the next answer tells."""
        self.is_retired = True
        self.actor.retire.options(max_task_retries=0).remote()
        self.ask()

    def end(self) -> None:
        """Kills it and gives back its bundles; what still runs in them is killed."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self.actor)
            if self.group is not None:
                remove_placement_group(self.group)


class ReplicaOwner:
    """Owns the replicas that it starts, until the context ends.

    A thread asks every rank 0 now and then what it has to do. One that has answered before and does not for `timeout_s` is killed, and
    Ray restarts it in its group; the group of one that is gone for good is removed.
    """

    def __init__(
        self, name: str, shape: ReplicaShape, actor: type[Replica], arguments: Sequence[Any], *, timeout_s: float
    ) -> None:
        """Rank 0 of a replica is an `actor` made from `arguments`. `name` stands before the replicas' own in the cluster, and must be
        used by no other owner of this driver."""
        self.prefix = f"millrace/{name}/"
        self._shape, self._actor, self._arguments, self._timeout_s = shape, actor, arguments, timeout_s
        self._numbers = itertools.count()
        self._replicas: list[_Owned] = []
        self._lost: list[str] = []
        self._sizing: Sizing | None = None
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="millrace-owner", daemon=True)

    def __enter__(self) -> "ReplicaOwner":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Lets go of all replicas, for good."""
        self._is_closed.set()
        self._thread.join()
        while self._replicas:
            self._replicas.pop().end()

    @property
    def first(self) -> Any:
        """The handle of the first replica that is to stay, which may still have to load."""
        return self._serving()[0].actor

    @property
    def has_lost_one(self) -> bool:
        """Whether a replica is gone that Ray will not restart: it could not be made."""
        return bool(self._lost)

    @property
    def loads(self) -> Sequence[EngineLoad]:
        """What each replica that is there last said of its calls, at most some seconds ago."""
        with self._lock:
            return [replica.load for replica in self._replicas if replica.load is not None]

    def start(self, count: int) -> None:
        """Starts `count` more replicas."""
        for _ in range(count):
            self._start_one()

    def size_within(self, bounds: Bounds) -> None:
        """Has the most replicas that there may be, and from then on as many as have something to do."""
        serving = self._serving()
        self.start(bounds.most - len(serving))
        for replica in serving[bounds.most :]:
            self._let_go(replica)
        self._sizing = Sizing(bounds)

    def _start_one(self) -> None:
        name = f"{self.prefix}{next(self._numbers)}"
        options: dict[str, Any] = {"name": name, "num_cpus": self._shape.cpus, "num_gpus": self._shape.gpus}
        group = None
        if self._shape.size > 1:
            group = placement_group(self._shape.bundles, strategy=self._shape.packing, name=name)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        actor: Any = ray.remote(self._actor).options(max_restarts=-1, **options).remote(*self._arguments)
        with self._lock:
            self._replicas.append(_Owned(name, actor, group))

    def _serving(self) -> list[_Owned]:
        with self._lock:
            return [replica for replica in self._replicas if not replica.is_retired]

    def _watch(self) -> None:
        while not self._is_closed.wait(PING_S):
            with self._lock:
                replicas = list(self._replicas)
            for replica in replicas:
                with _shaky(replica.name):
                    self._look(replica)
            if self._sizing is not None:
                with _shaky("the size"):
                    self._resize(self._sizing)

    def _look(self, replica: _Owned) -> None:
        if not replica.take_answer():
            waited = time.monotonic() - replica.asked_at
            if replica.num_calls is None or waited < self._timeout_s:
                return
            logger.warning("%s has not answered for %.0f s and is restarted", replica.name, waited)
            replica.load = None
            ray.kill(replica.actor, no_restart=False)
        if replica.is_gone and not replica.is_retired:
            self._lost.append(replica.name)
        if replica.is_gone or (replica.is_retired and not replica.num_calls):
            self._let_go(replica)
        else:
            replica.ask()

    def _resize(self, sizing: Sizing) -> None:
        serving = self._serving()
        match sizing.change([replica.num_calls for replica in serving]):
            case 1:
                logger.info("%d replicas are full: one more is started", len(serving))
                self._start_one()
            case -1:
                logger.info("%d replicas have little to do: one is let go", len(serving))
                self._have_one_fewer(serving)

    def _have_one_fewer(self, serving: list[_Owned]) -> None:
        """Lets go of one that has not even loaded, or else of the one with the least to do."""
        replica = min(serving, key=lambda replica: -1 if replica.num_calls is None else replica.num_calls)
        if replica.num_calls is None:
            self._let_go(replica)
        else:
            replica.retire()

    def _let_go(self, replica: _Owned) -> None:
        replica.is_retired = True
        with self._lock:
            if replica not in self._replicas:
                return
            self._replicas.remove(replica)
        replica.end()


@contextlib.contextmanager
def _shaky(what: str) -> Iterator[None]:
    """The cluster may be shaky: the run's own loop will notice if it is gone."""
    try:
        yield
    except ray.exceptions.RayError as error:
        logger.debug("%s could not be looked at: %s", what, error)
