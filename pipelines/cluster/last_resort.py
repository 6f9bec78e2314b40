"""Ends this process at a time set, whatever its main thread is stuck in.

A call into native code can neither be interrupted nor be waited for: Ray's connecting takes two
minutes, and what waits for a cluster that is gone waits for good. So the code that decides that a
run is over sets a time. If the run has not ended in order by then, a thread gives back what others
wait for (the lease, processes), says why, and ends the process.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

STEP_S = 1.0
"""What one step of giving back may take."""


class LastResort:
    """The end of this process if nothing else ends it. `say` tells people why; `end` is for tests."""

    def __init__(self, say: Callable[[str], None], *, end: Callable[[int], object] = os._exit) -> None:
        self._say, self._end = say, end
        self._steps: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._due = 0.0

    @contextlib.contextmanager
    def giving_back(self, step: Callable[[], None]) -> Iterator[None]:
        """While the context is open, `step` is part of the end; the last comes first."""
        self._steps.append(step)
        try:
            yield
        finally:
            self._steps.remove(step)

    def set(self, *, after_s: float, status: int, message: str) -> None:
        """From now on the process has `after_s` seconds to end in order. The first to say so counts."""
        with self._lock:
            if self._timer is None:
                self._start(after_s, status, message)

    def bring_forward(self, *, after_s: float, status: int, message: str) -> None:
        """The same, but if the end was to come later it comes then."""
        with self._lock:
            if self._timer is not None and time.monotonic() + after_s < self._due:
                self._timer.cancel()
                self._timer = None
            if self._timer is None:
                self._start(after_s, status, message)

    def call_off(self) -> None:
        """The run has ended in order."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _start(self, after_s: float, status: int, message: str) -> None:
        self._due = time.monotonic() + after_s
        self._timer = threading.Timer(after_s, self._finish, (status, message))
        self._timer.daemon = True
        self._timer.start()

    def _finish(self, status: int, message: str) -> None:
        for step in reversed(self._steps):
            self._take(step)
        self._say(message)
        self._end(status)

    @staticmethod
    def _take(step: Callable[[], None]) -> None:
        """One step, on a thread of its own: it may be stuck as well."""

        def take() -> None:
            try:
                step()
            except Exception:
                logger.warning("something could not be given back", exc_info=True)

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        thread.join(STEP_S)
