"""Panics of libraries in Rust, which are no `Exception`: they would go through every handler of ours, and end a process.

The library's own message of a panic is on standard error already.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class LibraryPanicError(Exception):
    """A library found itself in a state that it thought impossible; the text is its own."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turns a panic into a `LibraryPanicError`."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # its class has no public place
            raise
        raise LibraryPanicError(f"the library failed: {error}") from error
