"""The engine for many callers at once: its steps run in a thread of their own, each request is awaited.

Callers may live in any event loop. A request that its caller abandons is aborted, and its blocks are free within a
step.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from models.engine.engine import Engine
from models.engine.live_request import Delivery
from models.engine.memory import MemoryPlan
from models.engine.scheduling.request import Delta, Output, Priority, SamplingParams
from models.engine.scheduling.stats import EngineStats
from models.errors import EngineError, ModelError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer", Delta, Output)


@dataclass(kw_only=True, slots=True, eq=False)
class _Caller(Generic[Answer]):
    """Who waits for a request's deltas, or for its output, in an event loop of their own."""

    request_id: str
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    inbox: "asyncio.Queue[Answer | Exception]" = field(default_factory=asyncio.Queue)
    is_over: bool = False

    async def take(self) -> Answer:
        """The next answer. `is_over` is set with the last one, and with an error, which is raised."""
        item = await self.inbox.get()
        self.is_over = isinstance(item, Exception) or item.finish_reason is not None
        if isinstance(item, Exception):
            raise item
        return item


_Item = tuple[_Caller[Any], Delta | Output | Exception]


def _send(items: Iterable[_Item]) -> None:
    """Hands each caller what is its own. Each event loop is woken once, however many of its callers get something."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for caller, item in items:
        by_loop.setdefault(caller.loop, []).append((caller, item))
    for loop, of_loop in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, of_loop)
        except RuntimeError:  # the loop is closed: nobody waits there any more
            logger.debug("answers came after their callers' event loop was closed")


def _put(items: Iterable[_Item]) -> None:
    for caller, item in items:
        caller.inbox.put_nowait(item)


class AsyncEngine:
    """Owns an `Engine` and the thread that steps it."""

    def __init__(self, engine: Engine, watchdog: AbstractContextManager[None] | None = None) -> None:
        """`watchdog` is entered for every step."""
        self._engine, self._watchdog = engine, watchdog or nullcontext()
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._callers: dict[str, _Caller[Any]] = {}  # of requests that the engine has taken up
        self._lock = threading.Lock()  # over the next two
        self._open: set[_Caller[Any]] = set()  # all who wait, those included whose request was not taken up yet
        self._failure: EngineError | None = None  # set once no more commands are taken
        self._thread = threading.Thread(target=self._run, name="millrace-engine", daemon=True)
        self._thread.start()

    @property
    def memory(self) -> MemoryPlan:
        return self._engine.memory

    @property
    def stats(self) -> EngineStats:
        return self._engine.stats

    async def stream(
        self,
        request_id: str,
        token_ids: Sequence[int],
        params: SamplingParams,
        *,
        seed: int | None = None,
        priority: Priority = "batch",
    ) -> AsyncGenerator[Delta]:
        """Deltas of one request as they come. An "online" request goes before every "batch" one from the next step on.

        Raises:
            RequestError: this request cannot be served.
            EngineError: the engine failed; every request in flight gets this.
        """
        caller = _Caller[Delta](request_id=request_id)
        add = partial(self._engine.add, request_id, token_ids, params, seed=seed, is_streamed=True, priority=priority)
        with self._asked(caller, add):
            while not caller.is_over:
                yield await caller.take()

    async def generate(
        self,
        request_id: str,
        token_ids: Sequence[int],
        params: SamplingParams,
        *,
        seed: int | None = None,
        priority: Priority = "batch",
    ) -> Output:
        """The finished output of one request. Raises what `stream` raises."""
        caller = _Caller[Output](request_id=request_id)
        add = partial(self._engine.add, request_id, token_ids, params, seed=seed, priority=priority)
        with self._asked(caller, add):
            return await caller.take()

    async def abort(self, request_id: str) -> None:
        """Ends a request; its stream delivers what there is, with finish reason "abort"."""
        self._commands.put(lambda: self._abort(request_id))

    async def abort_all(self, priority: Priority) -> None:
        """Ends every request of a priority that was asked for before; each delivers what `abort` has it deliver. On drain,
        batch work goes back at once so."""
        self._commands.put(lambda: self._abort_all(priority))

    def close(self) -> None:
        """Stops after the step in flight and joins the thread. Requests that are still open get an EngineError."""
        self._commands.put(None)
        self._thread.join()
        self._engine.close()

    @contextmanager
    def _asked(self, caller: _Caller[Any], add: Callable[[], None]) -> Iterator[None]:
        """Has the engine's thread `add` a request, whose answers the caller gets within. One that is left before its end is
        aborted."""
        with self._lock:
            if self._failure is not None:
                raise EngineError(str(self._failure))
            self._open.add(caller)
            self._commands.put(lambda: self._add(caller, add))
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(caller)
            if not caller.is_over:
                self._commands.put(lambda: self._abandon(caller))

    def _add(self, caller: _Caller[Any], add: Callable[[], None]) -> None:
        """Takes up a request. What is wrong with it is its caller's alone: the engine has not begun with it."""
        try:
            add()
        except (ModelError, TypeError, ValueError) as error:
            _send([(caller, error)])
        else:
            self._callers[caller.request_id] = caller

    def _abandon(self, caller: _Caller[Any]) -> None:
        """Ends the request of a caller who left, unless it never began and the id is another's."""
        if self._callers.get(caller.request_id) is caller:
            self._abort(caller.request_id)

    def _abort(self, request_id: str) -> None:
        """Delivers at once, for the id may be taken again before the next step."""
        self._engine.abort(request_id)
        self._deliver_ended()

    def _abort_all(self, priority: Priority) -> None:
        self._engine.abort_all(priority)
        self._deliver_ended()

    def _deliver_ended(self) -> None:
        self._deliver(self._engine.take_ended())

    def _run(self) -> None:
        """The engine's thread: commands, then a step, for as long as there is work; else it waits for a command. They are
        taken once the step before is done, so that an online request is in the first step that begins after it came."""
        failure = EngineError("the engine was closed before the request finished")
        try:
            while self._obey():
                with self._watchdog:
                    deliveries = self._engine.step()
                self._deliver(deliveries)
                with self._watchdog:
                    self._engine.wait()
        except Exception as error:
            logger.exception("the engine failed")
            failure = error if isinstance(error, EngineError) else EngineError(f"the engine failed: {error!r}")
        self._release_callers(failure)

    def _obey(self) -> bool:
        """Carries out every command that waits; blocks for one when the engine is idle. False: close."""
        while True:
            try:
                command = self._commands.get(block=not self._engine.has_work)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()

    def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        items: list[_Item] = []
        for each in deliveries:
            is_last = each.answer.finish_reason is not None
            caller = self._callers.pop(each.request_id) if is_last else self._callers[each.request_id]
            items.append((caller, each.answer))
        _send(items)

    def _release_callers(self, failure: EngineError) -> None:
        """Tells everybody who still waits that nothing will come."""
        with self._lock:
            self._failure = failure
            _send([(caller, failure) for caller in self._open])
