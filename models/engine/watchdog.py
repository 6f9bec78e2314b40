"""Notices a step that does not end: a rank that hangs, a collective that waits for it, a device that is stuck."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

LOOKS_PER_LIMIT = 8
MAX_LOOK_S = 1.0


class Watchdog:
    """Calls `on_hang`, from a thread of its own and once at most, when what is done within the context takes longer than
    `limit_s`.

        with watchdog:
            engine.step()

    Each thread may be within once at a time.
    """

    def __init__(self, limit_s: float, on_hang: Callable[[str], None]) -> None:
        self._limit_s, self._on_hang = limit_s, on_hang
        self._since: dict[int, float] = {}  # by thread
        self._is_closed = threading.Event()
        threading.Thread(target=self._watch, name="millrace-watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._since[threading.get_ident()]

    def close(self) -> None:
        """Stops watching."""
        self._is_closed.set()

    def _watch(self) -> None:
        while not self._is_closed.wait(min(MAX_LOOK_S, self._limit_s / LOOKS_PER_LIMIT)):
            since = min(self._since.copy().values(), default=None)
            if since is not None and time.monotonic() - since > self._limit_s:
                self._on_hang(
                    f"a step took more than {self._limit_s:g} s (engine.step_timeout_s): this engine or a shard of it hangs"
                )
                return
