"""A loop beside a test, in a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def in_background(run: Callable[[threading.Event], None], *, patience_s: float | None = None) -> Iterator[None]:
    """`run` in a thread for as long as the context is open: it returns once the event that it is given is set.

    The end of the context waits for it, at most `patience_s` where that is given.
    """
    is_over = threading.Event()
    thread = threading.Thread(target=run, args=(is_over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(patience_s)
