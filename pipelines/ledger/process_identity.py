"""Which process this is, in a way that another process can check: is the holder of a lease on this machine, and is it still there?

A process id says nothing on another machine, in another container, after a reboot or once it is used again; so it comes with the
kernel's boot id, its process-id namespace, and the process's start time. Where the kernel tells none of these (no Linux), nothing
is concluded.
"""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_STATE, _START_TIME = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted behind the name


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process. `place` is the kernel and namespace that `pid` and `start_time` hold in, None if unknown."""

    host: str
    pid: int
    place: str | None
    start_time: str | None

    @classmethod
    def current(cls) -> "ProcessIdentity":
        pid = os.getpid()
        stat = _stat(pid)
        return cls(
            host=socket.gethostname(),
            pid=pid,
            place=_boot_and_namespace(),
            start_time=stat[_START_TIME] if stat else None,
        )

    def is_alive(self) -> bool | None:
        """Whether the process is still running; None if that cannot be told from here."""
        if self.place is None or self.start_time is None or self.place != _boot_and_namespace():
            return None
        stat = _stat(self.pid)
        return stat is not None and stat[_START_TIME] == self.start_time and stat[_STATE] not in "ZX"


def _boot_and_namespace() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the process's name, which is in brackets and may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
