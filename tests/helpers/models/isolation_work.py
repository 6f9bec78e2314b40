"""Work for the tests of isolation. It is pickled by name, so it is here and not in the tests."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import tokenizers

from models.errors import TemplateError
from models.isolation import step

_kept: list[bytearray] = []
_reserved: list[mmap.mmap] = []


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def context(number: int) -> int:
    return number


def refuse() -> NoReturn:
    raise TemplateError("there is no context")


def hang() -> NoReturn:
    while True:
        time.sleep(1)


def add(number: int, other: int) -> int:
    return number + other


def pid(_: int) -> int:
    return os.getpid()


def parent_pid(_: int) -> int:
    return os.getppid()


def pid_after(_: int, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def environment(_: int) -> str:
    return " ".join(os.environ.values())


def fail(_: int, error: Exception) -> NoReturn:
    raise error


def fail_unpicklable(_: int) -> NoReturn:
    raise UnpicklableError("so it", "was")


def allocate(_: int | None, num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def keep(_: int, num_bytes: int) -> None:
    _kept.append(bytearray(num_bytes))


def reserve(_: int, num_bytes: int) -> int:
    """Takes memory and does not write to it, until the next call; the worker's process id."""
    _reserved[:] = [mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)]
    return os.getpid()


def explode_in_rust(_: int) -> int:
    """Each character becomes a million: far beyond any limit."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.normalizer = tokenizers.normalizers.Replace("a", "b" * 1_000_000)
    return len(tokenizer.encode("a" * 10_000).ids)


def spin_at(_: int, steps: Sequence[int], seconds: float) -> None:
    for number in steps:
        step(number)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def sleep_in_steps(_: int, count: int, seconds: float) -> int:
    for number in range(count):
        step(number)
        time.sleep(seconds)
    return count


def sleep_in_one_step(_: int, seconds: float, allowance: float) -> float:
    step(0, allowance)
    time.sleep(seconds)
    return seconds


def die(_: int, how: str) -> None:
    step(4)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    else:
        panic()


def panic() -> None:
    """What pyo3 makes of a panic in Rust, which is no `Exception`."""
    raise type("PanicException", (BaseException,), {})("rust was here")


def start_holder() -> "subprocess.Popen[bytes]":
    """A process that makes a pool, tells the pids of server and worker, and then waits for nothing."""
    return subprocess.Popen([sys.executable, "-m", "tests.helpers.models.isolation_holder"], stdout=subprocess.PIPE)


def is_running(process: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
