"""Where a plan's counting runs: in this process, or in tasks on a cluster that was asked for; and the room engines would have there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from pipelines.cluster.connect import Room, connected, local_cpus, num_cores, rooms_on
from pipelines.cluster.ray_output import quiet_ray
from pipelines.job import EngineSpec
from pipelines.units.plan_on_ray import map_in_tasks
from pipelines.units.planning import MapTasks, map_here


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanningPlace:
    """How to count, and what one engine of each step gets."""

    map_tasks: MapTasks
    rooms: tuple[Room, ...]


@contextmanager
def planning_place(engines: Sequence[EngineSpec], address: str | None) -> Iterator[PlanningPlace]:
    """The cluster at `address`; None: this process, with the room that a cluster of our own would have.

    Raises:
        ClusterError: there is no such cluster, or it is too small.
    """
    if address is None:
        resources = {"CPU": float(local_cpus(engines, num_cores())), "GPU": float(torch.cuda.device_count())}
        yield PlanningPlace(map_tasks=map_here, rooms=rooms_on(engines, [resources]))
        return
    with quiet_ray(), connected(engines, address) as rooms:
        yield PlanningPlace(map_tasks=map_in_tasks, rooms=rooms)
