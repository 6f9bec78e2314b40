"""Keeps what Ray says in a log file, so that a run's own progress line is all that the terminal shows.

Ray speaks through four doors: the logger `ray.data` with a console handler of its own, a thread of the driver that prints messages
about dead workers on standard output, Python warnings, and native code that writes to file descriptor 2. The first three are led to
one file while the context is open. The fourth is everybody's, so it is led away only around a call that is known to speak.
"""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from pipelines.cluster.ray_private import data_off_the_terminal, driver_messages_to, session_logs

STDERR = 2


class Chatter:
    """The log file, and the door that is shut only now and then."""

    def __init__(self, path: Path, log: TextIO) -> None:
        self.path, self._log = path, log

    def move_to_session(self) -> None:
        """Puts the log beside Ray's own, once there is a session; where that cannot be it stays where it is."""
        logs = session_logs()
        if logs is not None:
            with contextlib.suppress(OSError):
                self.path = self.path.rename(logs / "millrace-driver.log")

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
        stack.enter_context(driver_messages_to(partial(_note, log)))
        stack.enter_context(data_off_the_terminal())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"ray\.")
        chatter = Chatter(Path(name), log)
        yield chatter
    if chatter.path.exists() and not chatter.path.stat().st_size:
        chatter.path.unlink()


def _note(log: TextIO, message: Mapping[str, Any]) -> None:
    log.writelines(f"({message['pid']}) {line}\n" for line in message["lines"])
