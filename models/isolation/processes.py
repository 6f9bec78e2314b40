"""The processes of a pool, as its caller holds them: one server, and workers that it forks."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from models.errors import OverrunError
from models.isolation.limits import MIB, ProcessLimits
from models.isolation.server import FORK, REAP, ServerWork
from models.isolation.steps import SharedSteps
from models.isolation.worker import OUT_OF_MEMORY, STDERR_BYTES, Reply

_CLOSE_S: Final = 5.0
_TOLD_CHARS: Final = 500
# What these processes may know of their caller's environment: no keys, no tokens.
_ENVIRONMENT: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "RAYON_NUM_THREADS", "TMPDIR", "TZ")
# Arrow's own allocator takes a gigabyte of addresses at once, which the kernel counts against the limit of memory.
_FRUGAL: Final = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
# What Rust's runtime writes before it ends a process that got no memory.
_NO_MEMORY: Final = "memory allocation of"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Server:
    """The server process. It begins to make the context at once. Not safe to use from several threads."""

    def __init__(self, setup: Callable[[], Any], limits: ProcessLimits) -> None:
        self._limits = limits
        ours, theirs = socket.socketpair()
        self._errors = os.memfd_create("millrace-server-errors")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "models.isolation.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is for the caller, who closes this
            )
        self._socket = ours
        self._channel = Connection(os.dup(ours.fileno()))
        work = ServerWork(setup=setup, memory_bytes=limits.memory_bytes, setup_memory_bytes=limits.setup_memory_bytes)
        with contextlib.suppress(BrokenPipeError):  # it died: the thread that waits for it learns of that
            self._channel.send_bytes(pickle.dumps(work))
        self._is_ready = False

    def is_settled(self, timeout_s: float) -> bool:
        """Whether the context is made, or has failed, after at most `timeout_s`."""
        return self._is_ready or self._channel.poll(timeout_s)

    def wait_ready(self) -> None:
        """Waits until the context is made.

        Raises:
            OverrunError: it took too long, or the process died.
            Exception: whatever `setup` raised.
        """
        if self._is_ready:
            return
        if not self._channel.poll(self._limits.setup_s):
            self._process.kill()
            raise OverrunError(f"it was not ready within {self._limits.setup_s:g} s", "time")
        try:
            reply: Reply = pickle.loads(self._channel.recv_bytes())  # noqa: S301  of the server
        except (EOFError, OSError) as error:
            raise death(
                self._process.wait(), _stderr_tail(self._errors), None, self._limits.setup_memory_bytes
            ) from error
        if reply.kind == "raised":
            raise reply.value
        self._is_ready = True

    def fork(self) -> "Worker":
        """A new worker, from a server that is ready.

        Raises:
            OSError: the server is gone.
            EOFError: the server is gone.
        """
        with contextlib.ExitStack() as unless_forked:
            ours, theirs = socket.socketpair()
            unless_forked.callback(ours.close)
            errors = os.memfd_create("millrace-worker-errors")
            unless_forked.callback(os.close, errors)
            steps = SharedSteps.create()
            shared = SharedSteps(steps)
            unless_forked.callback(shared.close)
            try:
                self._channel.send_bytes(FORK)
                socket.send_fds(self._socket, [b"+"], [theirs.fileno(), steps, errors])
                pid = int(self._channel.recv_bytes())
            finally:
                os.close(steps)
                theirs.close()
            unless_forked.pop_all()
            return Worker(self, pid, Connection(ours.detach()), shared, errors)

    def reap(self, pid: int) -> int:
        """The exit code of a worker of this server that was killed or has ended by itself, as `subprocess` has it."""
        self._channel.send_bytes(REAP + b"%d" % pid)
        return int(self._channel.recv_bytes())

    def close(self) -> None:
        """Ends it."""
        self._channel.close()
        self._socket.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._errors)


class Worker:
    """A worker process. Its process id is its own until the server has reaped it; then it has its `exit_code`."""

    def __init__(self, server: Server, pid: int, channel: Connection, steps: SharedSteps, errors: int) -> None:
        self._server, self.pid, self.channel, self.steps, self._errors = server, pid, channel, steps, errors
        self.exit_code: int | None = None
        self._base_bytes = self._held_bytes()

    def cpu_s(self) -> float:
        """Seconds of computing so far, in all its threads; 0 once it is dead."""
        fields = self._read("stat").rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0

    def grown_bytes(self) -> int:
        """Memory that it holds beyond what it began with, as far as it has written to it."""
        return self._held_bytes() - self._base_bytes

    def is_waiting(self) -> bool:
        """Whether it waits for a call; one that has died has closed its channel, which can be read then."""
        return not self.channel.poll(0)

    def kill(self) -> None:
        """Ends it in whatever it does."""
        with contextlib.suppress(ProcessLookupError):  # its server is gone, and took it along
            os.kill(self.pid, signal.SIGKILL)

    def told(self) -> str:
        """The end of what it wrote to its standard error."""
        return _stderr_tail(self._errors)

    def bury(self) -> int:
        """Ends it in whatever it does or has ended with, and gives back what belongs to it; returns its exit code."""
        if self.exit_code is None:
            self.kill()
            try:
                self.exit_code = self._server.reap(self.pid)
            except (EOFError, OSError):  # its server is gone, and took it along
                self.exit_code = -signal.SIGKILL
            self.channel.close()
            self.steps.close()
            os.close(self._errors)
        return self.exit_code

    def _held_bytes(self) -> int:
        """Of no file: all that is resident without what is shared with files."""
        fields = self._read("statm").split()
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES if fields else 0

    def _read(self, name: str) -> bytes:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_bytes()
        except OSError:
            return b""


def death(exit_code: int, told: str, step: int | None, memory_bytes: int) -> OverrunError:
    """What it means that a process ended by itself that was held to `memory_bytes`."""
    if exit_code == OUT_OF_MEMORY or (exit_code == -signal.SIGABRT and _NO_MEMORY in told):
        return OverrunError(f"it took more than {memory_bytes // MIB:,} MiB of memory", "memory", step)
    how = f"signal {-exit_code}" if exit_code < 0 else f"status {exit_code}"
    last = told.strip().splitlines()[-1:]
    return OverrunError(f"its process ended with {how}{''.join(f': {line!r}' for line in last)}", "crash", step)


def _stderr_tail(errors: int) -> str:
    size = min(os.fstat(errors).st_size, STDERR_BYTES)
    return os.pread(errors, _TOLD_CHARS, max(0, size - _TOLD_CHARS)).decode(errors="replace")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return {**kept, **_FRUGAL, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
