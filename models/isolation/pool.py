"""The caller's side: calls, the workers that answer them, and the limits they are held to."""

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from models.errors import EngineError, OverrunError
from models.isolation.limits import ProcessLimits
from models.isolation.processes import Server, Worker, death
from models.isolation.worker import Reply

Result = TypeVar("Result")

_CLOSED: Final = "the pool of isolated work is closed"
_LOOK_S: Final = 0.25
# A worker that has kept more of its memory than this share is replaced: the next call has all of it again.
_KEPT_SHARE: Final = 0.25


class IsolatedPool:
    """Workers around one context. Safe to use from several threads.

    `setup` makes the context in the server process; functions are given it as their first argument. All of them, their
    arguments, results and exceptions are pickled, so they are functions of modules. The server starts at once, in the
    background; the first call waits for it.
    """

    def __init__(self, setup: Callable[[], Any], *, limits: ProcessLimits, num_workers: int = 1) -> None:
        self._limits = limits
        self._team = _Team(setup, limits)
        self._free: list[Worker | None] = [None] * num_workers
        self._has_free = threading.Condition()
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="millrace-isolated")
        self._is_closed = False

    def start(self) -> None:
        """Waits until the context is made.

        Raises:
            OverrunError: that took too much time or memory, or the process died.
            Exception: whatever `setup` raised.
        """
        self._team.start()

    def is_settled(self, timeout_s: float) -> bool:
        """Waits at most so long for the context; whether `start` would return, or raise, at once."""
        return self._team.is_settled(timeout_s)

    def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """`function(context, *args)` in a worker; waits until one is free.

        Raises:
            OverrunError: it went over a limit, or its worker died.
            EngineError: the pool is closed.
            Exception: whatever `function` or `setup` raised.
        """
        result: Result = self._answer(_Call(function, args))
        return result

    async def run_async(self, function: Callable[..., Result], *args: Any) -> Result:
        """`run` for an event loop. Cancelled, it ends at once: its worker is killed, or it never begins."""
        call = _Call(function, args)
        answer = asyncio.wrap_future(self._threads.submit(self._answer, call))
        try:
            result: Result = await answer
        except asyncio.CancelledError:
            call.cancel()
            raise
        return result

    def close(self) -> None:
        """Ends all processes, whatever they are doing. May be called again."""
        with self._has_free:
            if self._is_closed:
                return
            self._is_closed = True
            self._has_free.notify_all()
        self._team.kill()
        self._threads.shutdown(cancel_futures=True)
        self._team.close()

    def _answer(self, call: "_Call") -> Any:
        worker = self._take()
        try:
            worker = self._team.waiting(worker)
            reply = self._reply(call, worker)
            if worker.grown_bytes() > _KEPT_SHARE * self._limits.memory_bytes:
                self._team.bury(worker)
                worker = None
        except BaseException:
            if worker is not None:
                self._team.bury(worker)
            worker = None
            raise
        finally:
            self._give_back(worker)
        if reply.kind == "raised":
            raise reply.value
        return reply.value

    def _take(self) -> Worker | None:
        with self._has_free:
            self._has_free.wait_for(lambda: self._free or self._is_closed)
            if self._is_closed:
                raise EngineError(_CLOSED)
            return self._free.pop()

    def _give_back(self, worker: Worker | None) -> None:
        with self._has_free:
            self._free.append(worker)
            self._has_free.notify()

    def _reply(self, call: "_Call", worker: Worker) -> Reply:
        """What the worker answers, in time."""
        worker.steps.begin()
        call.begin(worker)
        try:
            worker.channel.send_bytes(call.content)
            watch = _Watch(worker, self._limits)
            while not worker.channel.poll(watch.look_s):
                watch.look()
            reply: Reply = pickle.loads(worker.channel.recv_bytes())  # noqa: S301  of the worker
        except (EOFError, OSError) as error:
            if self._is_closed:
                raise EngineError(_CLOSED) from error
            step, told = worker.steps.read().number, worker.told()
            raise death(self._team.bury(worker), told, step, self._limits.memory_bytes) from error
        finally:
            call.end()
        return reply


class _Call:
    """A call on its way, which can be cancelled from another thread."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.content = pickle.dumps((function, args), protocol=pickle.HIGHEST_PROTOCOL)
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._is_cancelled = False

    def begin(self, worker: Worker) -> None:
        with self._lock:
            self._worker = worker
            if self._is_cancelled:
                worker.kill()

    def end(self) -> None:
        with self._lock:
            self._worker = None

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            if self._worker is not None:
                self._worker.kill()


class _Watch:
    """Whether a worker is over its time; it is looked at every `look_s`."""

    def __init__(self, worker: Worker, limits: ProcessLimits) -> None:
        self._worker, self._limits = worker, limits
        shortest = min(limit for limit in (limits.step_s, limits.step_cpu_s) if limit is not None)
        self.look_s = min(_LOOK_S, shortest / 4)
        self._step = worker.steps.read()
        self._begun, self._cpu_s = time.monotonic(), worker.cpu_s()

    def look(self) -> None:
        """Raises OverrunError if it is."""
        step, now, cpu_s = self._worker.steps.read(), time.monotonic(), self._worker.cpu_s()
        if step.serial != self._step.serial:
            self._step, self._begun, self._cpu_s = step, now, cpu_s
            return
        for limit, taken, what in (
            (self._limits.step_s, now - self._begun, "s"),
            (self._limits.step_cpu_s, cpu_s - self._cpu_s, "s of computing"),
        ):
            if limit is not None and taken > limit + step.seconds:
                raise OverrunError(f"it took more than {limit + step.seconds:g} {what}", "time", step.number)


class _Team:
    """The server and all its workers, whether they are in use or not. Safe to use from several
    threads."""

    def __init__(self, setup: Callable[[], Any], limits: ProcessLimits) -> None:
        self._setup, self._limits = setup, limits
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._failure: Exception | None = None
        self._server = Server(setup, limits)

    def start(self) -> None:
        """Waits until the context is made; what failed once fails again."""
        with self._lock:
            self._start()

    def is_settled(self, timeout_s: float) -> bool:
        """Whether `start` would not have to wait, after at most `timeout_s`."""
        with self._lock:
            return self._failure is not None or self._server.is_settled(timeout_s)

    def waiting(self, worker: Worker | None) -> Worker:
        """The same worker if it waits for a call, else a new one."""
        if worker is not None and worker.is_waiting():
            return worker
        if worker is not None:
            self.bury(worker)
        with self._lock:
            self._start()
            try:
                fresh = self._server.fork()
            except (EOFError, OSError):  # the server was killed: a new one does as well
                self._server.close()
                self._server = Server(self._setup, self._limits)
                self._start()
                fresh = self._server.fork()
            self._workers.add(fresh)
            return fresh

    def bury(self, worker: Worker) -> int:
        """Ends a worker in whatever it does, or has ended with; returns its exit code."""
        with self._lock:
            self._workers.discard(worker)
            return worker.bury()

    def kill(self) -> None:
        """Ends all workers, whatever they are doing."""
        with self._lock:
            for worker in self._workers:
                worker.kill()

    def close(self) -> None:
        """Ends the server too."""
        for worker in list(self._workers):
            self.bury(worker)
        with self._lock:
            self._server.close()

    def _start(self) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self._server.wait_ready()
        except Exception as error:
            self._failure = error
            raise
