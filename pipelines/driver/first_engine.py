"""Asking an engine of a run before the run's units are settled: the first one, which may still be
loading."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import ray

from actors.engine.owner import ReplicaOwner
from pipelines.rows.blocks import unpacked
from pipelines.rows.rows import Answers

WAIT_S: Final = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstEngine:
    """The first of `engines`. `look` is called while it is waited for, and raises what ends the
    run meanwhile."""

    engines: ReplicaOwner
    look: Callable[[], None]

    def answers(self, work: bytes, *, retries: int = 0) -> Answers | None:
        """The answers to packed work; None if the engine takes no more. A call is made again,
        `retries` times or without end (-1), if the engine dies over it.

        Raises:
            RayError: the engine died.
        """
        call = self.engines.first.compute.options(max_task_retries=retries)
        found: bytes | None = self.waited_for(call.remote(work))
        return None if found is None else unpacked(found)

    def waited_for(self, reference: Any) -> Any:
        """The value of a reference of Ray's."""
        while not ray.wait([reference], timeout=WAIT_S)[0]:
            self.look()
        return ray.get(reference)
