"""A worker: forked from the server, it answers one call after another until its channel closes."""

import contextlib
import os
import pickle
import resource
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NoReturn

from models.isolation.steps import SharedSteps, tell_through

STDERR_BYTES = 1 << 16
"""Of what a worker writes to its standard error."""

OUT_OF_MEMORY = 75
"""Exit status of a worker that ends because memory ran out."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call came to: its result, or the exception it raised."""

    kind: Literal["result", "raised"]
    value: Any


def serve_calls(channel: Connection, steps: int, context: Any, memory_bytes: int) -> NoReturn:
    """The whole life of a worker. `steps` is the descriptor of its `SharedSteps`."""
    tell_through(SharedSteps(steps))
    resource.setrlimit(resource.RLIMIT_FSIZE, (STDERR_BYTES, STDERR_BYTES))
    limit_memory(memory_bytes)
    with contextlib.suppress(EOFError, OSError):  # the pool is gone
        while True:
            channel.send_bytes(_answered(channel.recv_bytes(), context))
    os._exit(0)


def limit_memory(beyond: int) -> None:
    """ProcessLimits this process to this many bytes of memory beyond what it has."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    most = _data_bytes() + beyond
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def pickled_error(error: BaseException) -> bytes:
    """An exception as it can travel: as it is, or its text where its class does not come back from a pickle."""
    try:
        content = pickle.dumps(Reply("raised", error))
        pickle.loads(content)  # noqa: S301  our own
    except Exception:  # noqa: BLE001  whatever such a class does
        return pickle.dumps(Reply("raised", RuntimeError(f"{type(error).__name__}: {error}")))
    return content


def _answered(call: bytes, context: Any) -> bytes:
    try:
        function, args = pickle.loads(call)  # noqa: S301  of the pool's process
        return pickle.dumps(Reply("result", function(context, *args)), protocol=pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001  the process boundary
        return pickled_error(error)
    # Anything else, such as a panic of a library in Rust, ends the process: it may have left a lock behind.


def _data_bytes() -> int:
    """The bytes that the limit of data counts: private memory that can be written, and the heap."""
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))
