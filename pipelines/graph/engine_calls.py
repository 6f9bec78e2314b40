"""Which engine computes which unit: units wait in one line, and every engine that is ready takes as many as it may have.

Engines come and go. They are found by the names that their owner gives them (`actors.engine.owner`). A unit whose engine dies, or takes
no more, is the first that the next free engine is given.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import ray
from ray.exceptions import ActorDiedError, NodeDiedError, ObjectLostError, RayActorError, RayError
from ray.util import list_named_actors

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0

LOST: Final = (RayActorError, NodeDiedError, ObjectLostError)
"""The errors of a call whose engine died, or whose answer was lost on its way here."""


class _Unit(NamedTuple):
    """A unit that waits: its place in the line, its work, and where its answers go to."""

    number: int
    work: bytes
    answers: "asyncio.Future[bytes | None]"


class EngineCalls:
    """The line, and the engines that take from it. To be used within one event loop."""

    def __init__(self, engines: str, calls_each: int, is_permitted: Callable[[], Awaitable[bool]]) -> None:
        """`engines` begins the names of the engines, which have up to `calls_each` units each. `is_permitted` is asked before a
        unit is given to one."""
        self._prefix, self._calls_each, self._is_permitted = engines, calls_each, is_permitted
        self._numbers = itertools.count()
        self._line: asyncio.PriorityQueue[_Unit] = asyncio.PriorityQueue()
        self._known: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    async def compute(self, work: bytes) -> bytes | None:
        """What an engine answers to `work`; None if the unit is not to be begun any more."""
        if not self._tasks:
            self._begin(self._find_engines())
        unit = _Unit(next(self._numbers), work, asyncio.get_running_loop().create_future())
        self._line.put_nowait(unit)
        return await unit.answers

    async def _find_engines(self) -> None:
        """Has every engine take units from when it is there."""
        while True:
            try:
                for name in sorted(set(await asyncio.to_thread(self._names)) - self._known):
                    engine = ray.get_actor(name)
                    self._known.add(name)
                    for _ in range(self._calls_each):
                        self._begin(self._give_units(engine))
            except (
                RayError,
                ValueError,
            ) as error:  # one is gone again, or the cluster is shaky: the driver watches both
                logger.debug("engines cannot be looked for: %s", error)
            await asyncio.sleep(LOOK_S)

    def _names(self) -> list[str]:
        return [name for name in list_named_actors() if name.startswith(self._prefix)]

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_units(self, engine: Any) -> None:
        """Gives the engine one unit after the other, until it is gone or takes no more."""
        is_there = await _is_ready(engine)
        while is_there:
            unit = await self._line.get()
            try:
                if not await self._is_permitted():
                    unit.answers.set_result(None)
                    continue
                answers: bytes | None = await engine.compute.remote(unit.work)
            except LOST as error:
                logger.info("unit %d is given to another engine: %s", unit.number, type(error).__name__)
                self._line.put_nowait(unit)
                is_there = await _is_ready(engine)
            except Exception as error:  # noqa: BLE001 - raised where the unit is awaited
                unit.answers.set_exception(error)
            else:
                if answers is None:
                    self._line.put_nowait(unit)
                    return
                unit.answers.set_result(answers)


async def _is_ready(engine: Any) -> bool:
    """Waits until the engine has loaded, also again after a death. False if it is gone for good."""
    while True:
        try:
            await engine.load.options(max_task_retries=-1).remote()
        except ActorDiedError:
            return False
        except LOST:
            await asyncio.sleep(LOOK_S)
        else:
            return True
