"""Planning in Ray tasks: many stretches of the input at once, results in order, a bounded number of them under way."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from pipelines.cluster.connect import nodes

Item = TypeVar("Item")
Result = TypeVar("Result")

TASKS_PER_CPU = 2


def map_in_tasks(task: Callable[[Item], Result], items: Iterable[Item], /, *, num_cpus: float = 1) -> Iterator[Result]:
    """`pipelines.units.planning.MapTasks` on the cluster, with `num_cpus` logical CPUs a task. A single item is done here: no worker has
    to start for it."""
    waiting = iter(items)
    first = list(itertools.islice(waiting, 2))
    if len(first) < 2:
        yield from map(task, first)
        return
    window = max(2, int(TASKS_PER_CPU * sum(node.get("CPU", 0) for node in nodes())))
    shared = ray.put(task)
    under_way: deque[Any] = deque()
    for item in itertools.chain(first, waiting):
        under_way.append(_run.options(num_cpus=num_cpus).remote(shared, item))
        if len(under_way) >= window:
            yield ray.get(under_way.popleft())
    while under_way:
        yield ray.get(under_way.popleft())


@ray.remote
def _run(task: Callable[[Any], Any], item: Any) -> Any:
    return task(item)
