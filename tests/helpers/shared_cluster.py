"""One Ray cluster for all tests of a process that need one: its workers start, and import, once."""

from contextlib import ExitStack

SHARED_CPUS = 3


class SharedCluster:
    """A cluster of this process's own that comes and goes with the tests that need it."""

    def __init__(self) -> None:
        self._stack: ExitStack | None = None

    def join(self) -> None:
        """Starts it, unless it is up."""
        if self._stack is None:
            from tests.helpers.pipelines.running import ray_cluster  # most tests do without Ray

            with ExitStack() as stack:
                stack.enter_context(ray_cluster(num_cpus=SHARED_CPUS))
                self._stack = stack.pop_all()

    def leave(self) -> None:
        """Takes it down, if it is up."""
        if self._stack is not None:
            self._stack.close()
            self._stack = None
