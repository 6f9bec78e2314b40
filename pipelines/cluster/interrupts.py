"""Ctrl-C, SIGTERM and a terminal that hangs up as one `KeyboardInterrupt`, raised once: cleaning
up after the first signal is not interrupted by a second. If that does not end the process in time,
because the main thread is in native code or cleaning up is stuck, the last resort does, if there
is one.

SIGHUP counts unless it was ignored when the process started, as under nohup.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Final

from pipelines.cluster.last_resort import LastResort

INTERRUPTED: Final = "interrupted; what is committed stays, run again to go on"

SAME_S: Final = 1.0
"""Signals that arrive within this time count as one: a terminal and the parent process may both
pass on the same Ctrl-C."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grace:
    """From the first signal to the last resort, from a second one to it, and what is said then."""

    first_s: float
    second_s: float
    message: str


RUN_GRACE: Final = Grace(first_s=3.5, second_s=3.5, message=INTERRUPTED)


@contextlib.contextmanager
def interrupts(last_resort: LastResort | None = None, grace: Grace = RUN_GRACE) -> Iterator[Callable[[], None]]:
    """Handles the signals until the context closes. Its value sets the handlers again, for after `ray.init`, which takes SIGTERM away, and
    raises the interrupt of a signal that came meanwhile and was lost: what is raised where Ray forks goes no further (Python ignores
    exceptions of `os.register_at_fork`).

    Python delivers signals to the main thread; in any other the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    earlier = {number: signal.getsignal(number) for number in _signals()}
    was_interrupted = False
    has_arrived = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        nonlocal was_interrupted
        if not was_interrupted:
            was_interrupted = True
            raise KeyboardInterrupt

    def install() -> None:
        for number in earlier:
            signal.signal(number, interrupt)

    def install_again() -> None:
        nonlocal was_interrupted
        install()
        if was_interrupted or has_arrived.is_set():
            was_interrupted = True
            raise KeyboardInterrupt

    with _arrivals(frozenset(earlier), last_resort, grace, has_arrived):
        install()
        try:
            yield install_again
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)


def _signals() -> list[signal.Signals]:
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


@contextlib.contextmanager
def _arrivals(
    numbers: frozenset[int], last_resort: LastResort | None, grace: Grace, has_arrived: threading.Event
) -> Iterator[None]:
    """A thread that learns of a signal the moment it arrives, whatever the main thread is doing
    and whichever handler it has for the signal."""
    if last_resort is None:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        first: float | None = None
        while arrived := os.read(reading, 1):
            if arrived[0] not in numbers:
                continue
            now = time.monotonic()
            has_arrived.set()
            if first is None:
                first = now
                last_resort.set(after_s=grace.first_s, status=130, message=grace.message)
            elif now - first > SAME_S:
                last_resort.bring_forward(after_s=grace.second_s, status=130, message=grace.message)

    thread = threading.Thread(target=listen, name="millrace-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        os.close(writing)
        thread.join()
        os.close(reading)
        last_resort.call_off()
