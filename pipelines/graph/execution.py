"""One execution of a Ray Data graph: its blocks one by one, without waiting for the next, and a way to end it early."""

import queue
import threading
from types import TracebackType

import pyarrow as pa
import ray
from ray.data import Dataset
from ray.exceptions import RayTaskError

from pipelines.cluster.ray_private import StartedGraph
from pipelines.errors import GraphError

READY_BLOCKS = 64


class Execution:
    """Starts a dataset's graph, which then runs in the background while the context is open.

    A thread of its own waits for the results, because Ray Data's iterator blocks and the driver must see a dying engine, a lost lease
    and a Ctrl-C in the meantime. Leaving the context early cancels the tasks and kills the actors.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._graph = StartedGraph(dataset)
        self._results: queue.Queue[pa.Table | Exception | None] = queue.Queue(maxsize=READY_BLOCKS)
        self._is_left = threading.Event()
        self._thread = threading.Thread(target=self._collect, name="results", daemon=True)
        self.is_finished = False

    def __enter__(self) -> "Execution":
        self._thread.start()
        return self

    def next_block(self, timeout_s: float) -> pa.Table | None:
        """The next block; None if none came within `timeout_s`, or no more will come, as
        `is_finished` tells.

        Raises:
            GraphError: Ray gave the graph up.
        """
        try:
            result = self._results.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(result, Exception):
            raise GraphError(_innermost(result)) from result
        self.is_finished = result is None
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left.set()
        self._graph.end()
        while self._thread.is_alive():
            self._drop_results()
            self._thread.join(timeout=0.05)

    def _drop_results(self) -> None:
        while not self._results.empty():
            self._results.get_nowait()

    def _collect(self) -> None:
        """Passes every block on as it comes, then None, or the error."""
        try:
            for bundle in self._graph.bundles:
                for reference in bundle.block_refs:
                    block: pa.Table = ray.get(reference)
                    self._results.put(block)
                self._graph.forget_block_statistics()
                if self._is_left.is_set():
                    return
            self._results.put(None)
        except Exception as error:  # noqa: BLE001 - crosses to the driver's own thread
            self._results.put(error)


def _innermost(error: BaseException) -> str:
    """What was raised first, in the words of its type."""
    while True:
        inner = error.cause if isinstance(error, RayTaskError) else error.__cause__
        if inner is None:
            return f"{type(error).__name__}: {error}"
        error = inner
