"""Which Ray cluster a run uses, and how much of it.

A given cluster is used as it is; without one a run starts its own on this machine and takes it down again. A driver that is
connected already keeps its connection. Nothing but an address or `RAY_ADDRESS` ever leads to somebody else's cluster.
"""

import contextlib
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import ray

from pipelines.errors import ClusterError
from pipelines.job import EngineSpec

logger = logging.getLogger(__name__)

LOCAL: Final = "local"

LOCAL_SPARE_CPUS: Final = 2
"""Logical CPUs of a cluster of our own that no engine takes: reading and committing go on while every engine computes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What the parts of a run get: how many engines, the logical CPUs and GPUs of one and the threads of one of its matrix products on
    the CPU; the logical CPUs of a task that reads, and of one that commits, which mostly waits for storage."""

    replicas: int
    engine_cpus: float
    engine_gpus: float
    engine_threads: int
    read_cpus: float
    commit_cpus: float


@contextlib.contextmanager
def connected(engine: EngineSpec, address: str | None) -> Iterator[Room]:
    """Connects to the cluster that `address` names (local, auto, HOST:PORT; None: `RAY_ADDRESS`, else local) and disconnects again.

    Raises:
        ClusterError: there is no such cluster, or it is too small for the engines asked for.
    """
    if ray.is_initialized():
        yield room_on(engine, resources())
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    try:
        if address == LOCAL:
            _start_local(engine)
        else:
            _connect(address)
        yield room_on(engine, resources())
    finally:
        ray.shutdown()


def _start_local(engine: EngineSpec) -> None:
    num_cpus = local_cpus(engine, num_cores())
    ray.init(
        address=LOCAL,
        num_cpus=num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logger.info("started a Ray cluster of %d logical CPUs on this machine", num_cpus)


def _connect(address: str) -> None:
    if "://" in address:
        raise ClusterError(
            f"the cluster was {address!r}; it must be local, auto or HOST:PORT of the cluster's head node"
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"cannot connect to the Ray cluster {address!r}: {error}") from error
    logger.info("connected to the Ray cluster %s", address)


def resources() -> dict[str, float]:
    """What the connected cluster has in all."""
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def num_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0))


def engine_cpus(engine: EngineSpec) -> float:
    """The logical CPUs of one engine."""
    return 1.0 if engine.num_cpus is None else engine.num_cpus


def local_cpus(engine: EngineSpec, cores: int) -> int:
    """The logical CPUs of a cluster of our own: every core, and never so few that the engines take them all."""
    return max(cores, math.ceil(engine.replicas * engine_cpus(engine)) + LOCAL_SPARE_CPUS)


def room_on(engine: EngineSpec, available: dict[str, float]) -> Room:
    """How the engines fit on a cluster with these resources.

    Raises:
        ClusterError: less than one CPU would be left for reading and committing, or there are fewer GPUs than engines.
    """
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    wanted = engine.replicas * engine_cpus(engine)
    spare = round(cpus - wanted, 4)  # Ray counts CPUs in ten-thousandths
    if spare < 1:
        raise ClusterError(
            f"{engine.replicas} engines of {engine_cpus(engine):g} CPUs take {wanted:g} of the cluster's {cpus:g} CPUs; at least 1 must be "
            f"left for reading and committing: give the cluster {math.ceil(wanted) + 1} CPUs, or lower engine.replicas or engine.num_cpus"
        )
    if 0 < gpus < engine.replicas:
        raise ClusterError(
            f"{engine.replicas} engines need a GPU each, and the cluster has {gpus:g}: lower engine.replicas or add GPUs"
        )
    return Room(
        replicas=engine.replicas,
        engine_cpus=engine_cpus(engine),
        engine_gpus=1.0 if gpus > 0 else 0.0,
        engine_threads=max(1, int(engine_cpus(engine))),
        read_cpus=_read_cpus(engine, spare_cpus=spare),
        commit_cpus=0.5 if spare >= 2 else 0.25,
    )


def _read_cpus(engine: EngineSpec, *, spare_cpus: float) -> float:
    """About a CPU, or half of one where there is only one for reading and committing. Never what an engine asks for: Ray Data runs
    operators with equal resources in one process."""
    fitting = (0.9, 0.8) if spare_cpus >= 2 else (0.5, 0.4)
    return next(cpus for cpus in fitting if cpus != engine_cpus(engine))
