"""The journal of engine starts: one small file in `attempts/` for each, with the cause once it has failed.

    attempt = Attempts(store, epoch).begin()      # in the engine's process
    attempt.ready()
    attempt.fail("CUDA out of memory")
    Attempts(store, epoch).all()                  # in the driver

An engine that is killed from outside leaves a start without a cause; the cluster may know more of that process. Names carry the epoch
of the run's lease, because engines outlive a killed driver by seconds.
"""

import os
import secrets
from dataclasses import asdict, dataclass, replace
from typing import Self

import orjson
import ray

from models.engine.memory import MemoryPlan
from pipelines.io.outputs import Store
from pipelines.ledger.receipts import ATTEMPTS

_PREFIX = "engine-"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStart:
    """One engine process: the replica it is the first rank of, its Ray node, its process id there, what it has done with its memory
    once it has loaded, and why it failed if it could say. A restart is another process of the same replica."""

    replica: str
    node: str
    pid: int
    is_ready: bool = False
    memory: MemoryPlan | None = None
    cause: str | None = None

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Reads what `Attempt` wrote."""
        fields = orjson.loads(content)
        memory = fields.pop("memory")
        return cls(**fields, memory=None if memory is None else MemoryPlan(**memory))


class Attempt:
    """The start of the engine in this process."""

    def __init__(self, store: Store, name: str, start: EngineStart) -> None:
        self._store, self._name, self._start = store, name, start
        self._write()

    def ready(self, memory: MemoryPlan | None) -> None:
        """Journals that the engine has loaded, and what it has done with its memory."""
        self._start = replace(self._start, is_ready=True, memory=memory)
        self._write()

    def fail(self, cause: str) -> None:
        """Journals why the engine is of no more use."""
        self._start = replace(self._start, cause=cause)
        self._write()

    def _write(self) -> None:
        self._store.write(self._name, orjson.dumps(asdict(self._start)))


class Attempts:
    """All engine starts of the run that holds the lease with this epoch."""

    def __init__(self, store: Store, epoch: int) -> None:
        self._store, self._prefix = store, f"{_PREFIX}{epoch}-"
        self._known: dict[str, tuple[int, EngineStart]] = {}

    def begin(self) -> Attempt:
        """Journals that an engine starts in this process."""
        context = ray.get_runtime_context()
        name = f"{ATTEMPTS}/{self._prefix}{secrets.token_hex(8)}.json"
        replica = context.get_actor_name() or ""
        return Attempt(self._store, name, EngineStart(replica=replica, node=context.get_node_id(), pid=os.getpid()))

    def all(self) -> list[EngineStart]:
        """Every start so far; only files that are new or have changed are read."""
        for name, size in self._store.sizes(ATTEMPTS):
            if name.startswith(self._prefix) and self._known.get(name, (-1, None))[0] != size:
                content = self._store.read(f"{ATTEMPTS}/{name}")
                if content is not None:
                    self._known[name] = (len(content), EngineStart.from_json(content))
        return [start for _, start in self._known.values()]

    def clear(self) -> None:
        """Removes the journals of this run and of all before it."""
        for name, _ in list(self._store.sizes(ATTEMPTS)):
            if name.startswith(_PREFIX):
                self._store.delete(f"{ATTEMPTS}/{name}")
        self._known.clear()
