"""What the processes of a service take, as the kernel counts it: memory that nobody else has, and time of processors.

The processes of a job that runs in the service's cluster are left out, and so are Ray's own but the HTTP proxy and the controller.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.pipelines.killing import below

KINDS: Mapping[str, str] = {
    "ray::ProxyActor": "proxy",
    "ray::ServeController": "controller",
    "ray::ServeReplica:tests:": "",  # the name of the deployment
}
"""What titles begin with, and what their processes are called; a process of another title is as its parent is."""

CHANGED_BYTES = 4 << 20
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a service, and what it is part of."""

    pid: int
    kind: str


def members(service: int) -> list[Member]:
    """The processes that serve, below the process of a service."""
    found = list(below(service))
    kinds = {process.pid: _kind(process.title) for process in found}
    parents = {process.pid: _parent(process.pid) for process in found}
    return [Member(process.pid, kind) for process in found if (kind := _inherited(process.pid, kinds, parents))]


class MemoryCount:
    """Bytes that are private to processes, shared ones divided among those who share them; files are not counted."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def of(self, service: int) -> dict[str, int]:
        """Bytes by kind of process. Who has not changed much since the last call is not looked at closely: that takes time."""
        totals: dict[str, int] = {}
        for member in members(service):
            totals[member.kind] = totals.get(member.kind, 0) + self._bytes(member.pid)
        return totals

    def _bytes(self, pid: int) -> int:
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
            before, counted = self._seen.get(pid, (-CHANGED_BYTES, 0))
            if abs(resident - before) >= CHANGED_BYTES:
                counted = _own_bytes(pid)
                self._seen[pid] = resident, counted
        except (OSError, ValueError):  # it has ended
            return 0
        return counted


def cpu_seconds(service: int) -> dict[Member, float]:
    """Seconds of processors that each process has taken."""
    return {member: seconds for member in members(service) if (seconds := _cpu_s(member.pid)) is not None}


def kill_kind(service: int, kind: str) -> None:
    """SIGKILL to all processes of one kind."""
    for member in members(service):
        if member.kind == kind:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)


def _kind(title: str) -> str | None:
    for start, name in KINDS.items():
        if title.startswith(start):
            return name or title.removeprefix(start).split()[0].partition(".")[0]  # what it does stands after a dot
    return "" if title.startswith("ray::") else None


def _inherited(pid: int, kinds: Mapping[int, str | None], parents: Mapping[int, int]) -> str | None:
    kind, at = kinds[pid], pid
    while kind is None and parents[at] in kinds:
        at = parents[at]
        kind = kinds[at]
    return kind


def _parent(pid: int) -> int:
    return int(_stat(pid)[1]) if _stat(pid) else 0


def _cpu_s(pid: int) -> float | None:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _own_bytes(pid: int) -> int:
    return sum(_rollup(pid))


def _rollup(pid: int) -> Iterator[int]:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
            yield int(line.split()[1]) << 10
