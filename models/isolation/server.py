"""The server of a pool: makes the context, then forks workers as it is told to. `python -m models.isolation.server N`,
where N is the descriptor of the channel to the pool.

It has a single thread and never does what a stranger's template says, so that it always answers.
"""

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn

from models.isolation.worker import OUT_OF_MEMORY, Reply, limit_memory, pickled_error, serve_calls

READY: Final = b"ready"
FORK: Final = b"fork"
REAP: Final = b"reap "
_DESCRIPTORS: Final = 3
_PR_SET_PDEATHSIG: Final = 1
_PARALLEL: Final = "TOKENIZERS_PARALLELISM"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerWork:
    """What the pool sends first."""

    setup: Callable[[], Any]
    memory_bytes: int
    setup_memory_bytes: int


def main(descriptor: int) -> None:
    """Serves one pool, until that closes its end."""
    channel = Connection(descriptor)
    work: ServerWork = pickle.loads(channel.recv_bytes())  # noqa: S301  of the pool's process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory(work.setup_memory_bytes)
    try:
        context = _made(work.setup)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001  the process boundary
        channel.send_bytes(pickled_error(error))
        return
    gc.freeze()  # what is here is shared with the workers until one of them writes to it
    channel.send_bytes(pickle.dumps(Reply("result", READY)))
    try:
        while True:
            order = channel.recv_bytes()
            if order == FORK:
                channel.send_bytes(b"%d" % _fork(channel, context, work.memory_bytes))
            else:
                channel.send_bytes(b"%d" % _exit_code(int(order.removeprefix(REAP))))
    except (EOFError, OSError):
        return


def _made(setup: Callable[[], Any]) -> Any:
    """The context, made without threads of a library: those would not be there after a fork."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "false"
    try:
        return setup()
    finally:
        if before is None:
            del os.environ[_PARALLEL]
        else:
            os.environ[_PARALLEL] = before


def _fork(channel: Connection, context: Any, memory_bytes: int) -> int:
    """A new worker's process id. Its descriptors come with the order: its channel, its steps, its standard error."""
    with socket.socket(fileno=os.dup(channel.fileno())) as carrier:
        _, descriptors, _, _ = socket.recv_fds(carrier, 1, _DESCRIPTORS)
    pid = os.fork()
    if pid == 0:
        _become_worker(channel, descriptors, context, memory_bytes)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _become_worker(channel: Connection, descriptors: list[int], context: Any, memory_bytes: int) -> NoReturn:
    try:
        server = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(0)
        channel.close()
        own, steps, stderr = descriptors
        os.dup2(stderr, 2)
        serve_calls(Connection(own), steps, context, memory_bytes)
    except BaseException:  # noqa: BLE001  a panic of a library, a lost server
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _exit_code(pid: int) -> int:
    """How a worker that has been killed, or has closed its channel, ended: as `os.waitstatus_to_exitcode` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(int(sys.argv[1]))
