"""Keeps what Ray says in a log file, so that a run's own progress line is all that the terminal shows.

Ray speaks through four doors: the logger `ray.data` with a console handler of its own, a thread of the driver that prints messages
about dead workers on standard output, Python warnings, and native code that writes to file descriptor 2. The first three are led to
one file while the context is open. The fourth is everybody's, so it is led away only around a call that is known to speak.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

STDERR = 2


class Chatter:
    """The log file, and the door that is shut only now and then."""

    def __init__(self, path: Path, log: TextIO) -> None:
        self.path, self._log = path, log

    def move_to_session(self) -> None:
        """Puts the log beside Ray's own, once there is a session; where that cannot be it stays where it is."""
        from ray._private import worker

        if worker._global_node is not None:
            with contextlib.suppress(OSError):
                self.path = self.path.rename(Path(worker._global_node.get_logs_dir_path()) / "millrace-driver.log")

    @contextlib.contextmanager
    def native_stderr(self) -> Iterator[None]:
        """What anybody in this process writes to file descriptor 2 goes to the log."""
        sys.stderr.flush()
        kept = os.dup(STDERR)
        os.dup2(self._log.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(kept, STDERR)
            os.close(kept)


@contextlib.contextmanager
def quiet_ray() -> Iterator[Chatter]:
    """Leads Ray's chatter to a file, first in the temporary folder. An empty one is removed at the end."""
    handle, name = tempfile.mkstemp(prefix="millrace-", suffix=".log")
    with (
        open(handle, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as log,  # noqa: PTH123 - a descriptor
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(_driver_messages(log))
        stack.enter_context(_data_logger())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"ray\.")
        chatter = Chatter(Path(name), log)
        yield chatter
    if chatter.path.exists() and not chatter.path.stat().st_size:
        chatter.path.unlink()


@contextlib.contextmanager
def _driver_messages(log: TextIO) -> Iterator[None]:
    """What `ray._private.worker` would print of the cluster's messages."""
    from ray._private import worker

    def write(message: Mapping[str, Any], ignore_prefix: bool) -> None:
        del ignore_prefix
        log.writelines(f"({message['pid']}) {line}\n" for line in message["lines"])

    printed = worker.print_to_stdstream
    worker.print_to_stdstream = write  # type: ignore[assignment]
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


@contextlib.contextmanager
def _data_logger() -> Iterator[None]:
    """The logger `ray.data` without its console handler; its file in Ray's session folder stays."""
    import ray.data  # noqa: F401 - makes the handlers

    logger = logging.getLogger("ray.data")
    consoles = [handler for handler in logger.handlers if type(handler).__name__ == "PlainRayHandler"]
    for handler in consoles:
        logger.removeHandler(handler)
    try:
        yield
    finally:
        for handler in consoles:
            logger.addHandler(handler)
        _forget_session(logger)


def _forget_session(logger: logging.Logger) -> None:
    """Has the logger look for Ray's session folder anew: it would go on with that of a cluster that is gone."""
    for handler in logger.handlers:
        to_session: logging.Handler | None = getattr(handler, "_handler", None)
        if to_session is not None:
            to_session.close()
            handler._handler = None  # type: ignore[attr-defined]
