"""Processes that a cluster of our own has left behind: those that still have a log file of its session open for writing.

Agents of a raylet that was killed, or that was interrupted while it started, live on for minutes under other parents and other names.
Their open files tell whose they are: Ray ends a session folder's name with the id of the process that started it.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 2.0
_WRITABLE: Final = 0o200


def end_leftovers(temporary_folder: str) -> None:
    """Ends them, and returns once they are gone or after two seconds."""
    end = time.monotonic() + _PATIENCE_S
    while (found := _leftovers(temporary_folder)) and time.monotonic() < end:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _leftovers(temporary_folder: str) -> list[int]:
    sessions = os.path.realpath(temporary_folder) + "/ray/session_"
    others = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal())
    return [pid for pid in others if pid != os.getpid() and _writes_into(pid, sessions, f"_{os.getpid()}")]


def _writes_into(pid: int, sessions: str, ending: str) -> bool:
    """Whether a process has a file open for writing under a folder whose path starts and ends so."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False  # gone, or another user's
    return any(_is_written(each, sessions, ending) for each in descriptors)


def _is_written(descriptor: Path, sessions: str, ending: str) -> bool:
    try:
        place, mode = str(descriptor.readlink()), descriptor.lstat().st_mode
    except OSError:
        return False
    session = place.removeprefix(sessions).partition("/")[0]
    return place.startswith(sessions) and session.endswith(ending) and bool(mode & _WRITABLE)
