"""Ctrl-C and SIGTERM as one `KeyboardInterrupt`, once: whoever cleans up after the first is not disturbed by a second."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """Handles both signals until the context closes. Its value sets the handlers again, for after `ray.init`, which takes SIGTERM away.

    Python delivers signals to the main thread; in any other the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    was_interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as `signal` calls it
        nonlocal was_interrupted
        if not was_interrupted:
            was_interrupted = True
            raise KeyboardInterrupt

    def install() -> None:
        for number in _SIGNALS:
            signal.signal(number, interrupt)

    earlier = {number: signal.getsignal(number) for number in _SIGNALS}
    install()
    try:
        yield install
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
