"""Which Ray cluster a run uses, and how much of it.

A given cluster is used as it is; without one a run starts its own on this machine and takes it
down again. A driver that is connected already keeps its connection. A run joins a cluster that it
did not start only if it is given an address or `RAY_ADDRESS`.
"""

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ray

from actors.engine.owner import Packing
from pipelines.cluster.address import check_address
from pipelines.cluster.leftovers import end_leftovers
from pipelines.cluster.local_place import check_local_place
from pipelines.cluster.ray_private import default_temporary_folder
from pipelines.cluster.token import secure_token_file, warn_if_open
from pipelines.errors import ClusterError
from pipelines.job import EngineSpec

logger = logging.getLogger(__name__)

LOCAL: Final = "local"

ASKING_CPUS: Final = 0.1
"""Logical CPUs of a process that computes nothing but asks others: the engine stage, an engine that asks a service."""

LOCAL_SPARE_CPUS: Final = 2
"""Logical CPUs of a cluster of our own that no engine takes: reading and committing go on while every engine computes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What the parts of a run get: how many engines at least and at most, the shards of one and how they are packed; the logical CPUs
    and GPUs of a shard; the logical CPUs of a task that reads, and of one that
    commits, which mostly waits for storage; and those of the whole cluster."""

    replicas: int
    max_replicas: int
    num_shards: int
    packing: Packing
    engine_cpus: float
    engine_gpus: float
    read_cpus: float
    commit_cpus: float
    cluster_cpus: float

    @property
    def free_cpus(self) -> float:
        """What the most engines leave of the cluster."""
        return self.cluster_cpus - self.max_replicas * self.num_shards * self.engine_cpus


@contextlib.contextmanager
def connected(engines: Sequence[EngineSpec], address: str | None) -> Iterator[tuple[Room, ...]]:
    """Connects to a cluster as `joined` does, and finds room on it for the engines of each step.

    Raises:
        ClusterError: there is no such cluster, or it is too small for the engines asked for.
    """
    with joined(address, num_cpus=local_cpus(engines, num_cores())):
        yield rooms_on(engines, nodes())


@contextlib.contextmanager
def joined(address: str | None, *, num_cpus: int) -> Iterator[None]:
    """Connects to the cluster that `address` names (local, auto, HOST:PORT; None: `RAY_ADDRESS`, else local) and disconnects again. A
    local one has `num_cpus` logical CPUs.

    Raises:
        ClusterError: there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    check_place(address)
    place = _settled(address)
    try:
        if place == LOCAL:
            _start_local(num_cpus)
        else:
            _connect(place)
        yield
    finally:
        ray.shutdown()
        if place == LOCAL:
            end_leftovers(default_temporary_folder())


def check_place(address: str | None) -> None:
    """Checks that `joined` can succeed: a cluster listens at the address, or there is room for one
    here.

    Raises:
        ClusterError: it cannot.
    """
    if ray.is_initialized():
        return
    place = _settled(address)
    if place == LOCAL:
        check_local_place()
    else:
        check_address(place)


def will_start_one(address: str | None) -> bool:
    """Whether `joined` starts a cluster of its own on this machine."""
    return not ray.is_initialized() and _settled(address) == LOCAL


def _settled(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def _start_local(num_cpus: int) -> None:
    secure_token_file(makes_one=True)
    try:
        ray.init(
            address=LOCAL,
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray's own are plain ones
        raise ClusterError(f"a Ray cluster cannot be started on this machine: {error}") from error
    logger.info("started a Ray cluster of %d logical CPUs on this machine", num_cpus)


def _connect(address: str) -> None:
    secure_token_file(makes_one=False)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot connect to the Ray cluster {address!r}: {error}") from error
    logger.info("connected to the Ray cluster %s", address)
    warn_if_open(ray.get_runtime_context().gcs_address)


def nodes() -> list[Mapping[str, float]]:
    """What each node of the connected cluster has in all."""
    found: list[Mapping[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in found if node["Alive"]]


def num_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))


def engine_cpus(engine: EngineSpec) -> float:
    """The logical CPUs of one shard of an engine; of one that only asks a service, next to none."""
    if engine.service is not None:
        return ASKING_CPUS
    return 1.0 if engine.num_cpus is None else engine.num_cpus


def engine_threads(engine: EngineSpec) -> int:
    """The threads of one matrix product of a shard on the CPU."""
    return max(1, int(engine_cpus(engine)))


def local_cpus(engines: Sequence[EngineSpec], cores: int) -> int:
    """The logical CPUs of a cluster of our own: every core, and never so few that the engines of all steps take them all."""
    taken = sum(
        (engine.max_replicas or engine.replicas) * engine.tensor_parallel_size * engine_cpus(engine)
        for engine in engines
    )
    return max(cores, math.ceil(taken) + LOCAL_SPARE_CPUS)


def rooms_on(engines: Sequence[EngineSpec], nodes: Sequence[Mapping[str, float]]) -> tuple[Room, ...]:
    """How the engines of several steps fit beside one another: each step has the fewest that it asks for, and what is left goes to the
    first of them that can have more. The last room has what is left of the cluster beside all engines.

    Raises:
        ClusterError: they do not fit.
    """
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    shards = sum(engine.replicas * engine.tensor_parallel_size for engine in engines)
    if len(engines) > 1 and 0 < gpus < shards:
        raise ClusterError(
            f"cascade: the engines of its {len(engines)} steps need a GPU for each of {shards} shards, and the cluster has {gpus:g}: "
            "lower engine.replicas, take a step out or add GPUs"
        )
    rooms: list[Room] = []
    for number, engine in enumerate(engines):
        taken = [(each, room.max_replicas) for each, room in zip(engines, rooms, strict=False)]
        later = [(each, each.replicas) for each in engines[number + 1 :]]
        try:
            rooms.append(room_on(engine, _left_of(nodes, [*taken, *later])))
        except ClusterError as error:
            if len(engines) == 1:
                raise
            raise ClusterError(f"cascade[{number}], beside the engines of the other steps: {error}") from error
    return tuple(rooms)


def _left_of(
    nodes: Sequence[Mapping[str, float]], taken: Sequence[tuple[EngineSpec, int]]
) -> list[Mapping[str, float]]:
    """The nodes without what so many engines of each kind take, shard by shard from the node with the most CPUs."""
    left = [dict(node) for node in nodes]
    for engine, count in taken:
        gpus = 1.0 if engine.service is None and any(node.get("GPU", 0.0) > 0 for node in nodes) else 0.0
        for _ in range(count * engine.tensor_parallel_size):
            node = max(left, key=lambda each: (each.get("GPU", 0.0) >= gpus, each.get("CPU", 0.0)))
            node["CPU"] = max(0.0, node.get("CPU", 0.0) - engine_cpus(engine))
            node["GPU"] = max(0.0, node.get("GPU", 0.0) - gpus)
    return [*left]


def room_on(engine: EngineSpec, nodes: Sequence[Mapping[str, float]]) -> Room:
    """How the engines fit on a cluster of nodes with these resources. There may be fewer than `engine.max_replicas`.

    Raises:
        ClusterError: less than one CPU would be left for reading and committing, there are fewer GPUs than shards, or the nodes are
            too small.
    """
    cpus, gpus = (sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU"))
    if engine.service is not None:
        gpus = 0.0  # the service has them
    each, size = engine_cpus(engine), engine.tensor_parallel_size
    wanted = engine.replicas * size * each
    spare = round(cpus - wanted, 4)  # Ray counts CPUs in ten-thousandths
    what = f"{engine.replicas} engines of " + (f"{each:g} CPUs" if size == 1 else f"{size} shards of {each:g} CPUs")
    less = "engine.replicas or engine.num_cpus" if size == 1 else "engine.replicas, engine.num_cpus or the size"
    if spare < 1:
        raise ClusterError(
            f"{what} take {wanted:g} of the cluster's {cpus:g} CPUs; at least 1 must be left for reading and committing: give the "
            f"cluster {math.ceil(wanted) + 1} CPUs, or lower {less}"
        )
    if 0 < gpus < engine.replicas * size:
        needing = (
            f"{engine.replicas} engines" if size == 1 else f"the {size} shards of each of {engine.replicas} engines"
        )
        raise ClusterError(f"{needing} need a GPU each, and the cluster has {gpus:g}: lower {less} or add GPUs")
    places = _places_on(engine, nodes)
    packing = _packing(places, size)
    fitting = sum(count // size for count in places) if packing == "STRICT_PACK" else sum(places) // size
    if fitting < engine.replicas:
        raise ClusterError(
            f"{what} do not fit on the cluster's {len(nodes)} nodes, which have room for {fitting}: lower {less}, or give it larger nodes"
        )
    most = min(engine.max_replicas or engine.replicas, fitting, int((cpus - 1 + 1e-6) // (size * each)))
    most = max(most, engine.replicas)
    least_spare = round(cpus - most * size * each, 4)
    return Room(
        replicas=engine.replicas,
        max_replicas=most,
        num_shards=size,
        packing=packing,
        engine_cpus=each,
        engine_gpus=1.0 if gpus > 0 else 0.0,
        read_cpus=0.9 if least_spare >= 2 else 0.5,  # one that reads and one that commits, and what asks the engines
        commit_cpus=0.5 if least_spare >= 2 else 0.25,
        cluster_cpus=cpus,
    )


def packing_on(engine: EngineSpec, nodes: Sequence[Mapping[str, float]]) -> Packing:
    """How the shards of an engine lie on these nodes: on one, unless none has room for all of them."""
    return _packing(_places_on(engine, nodes), engine.tensor_parallel_size)


def _packing(places: Sequence[int], size: int) -> Packing:
    """`places` are the shards that each node has room for."""
    return "STRICT_PACK" if max(places) >= size else "PACK"


def _places_on(engine: EngineSpec, nodes: Sequence[Mapping[str, float]]) -> list[int]:
    """How many shards of an engine each node has room for. Where there are GPUs each needs one,
    except for those that only ask a service, which has them."""
    needs_gpu = engine.service is None and any(node.get("GPU", 0.0) > 0 for node in nodes)
    return [_shards_on(node, engine_cpus(engine), needs_gpu=needs_gpu) for node in nodes]


def _shards_on(node: Mapping[str, float], cpus: float, *, needs_gpu: bool) -> int:
    """How many shards a node has room for."""
    by_cpu = int((node.get("CPU", 0.0) + 1e-6) // cpus)
    return min(by_cpu, int(node.get("GPU", 0.0))) if needs_gpu else by_cpu
