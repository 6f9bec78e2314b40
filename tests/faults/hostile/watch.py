"""What an attack costs everybody else: how long `/health` stalls, how much memory the service takes, how long it goes on computing."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic, sleep

from tests.faults.hostile.neighbour import asking
from tests.faults.hostile.processes import MemoryCount, cpu_seconds, kill_kind
from tests.faults.hostile.stall import probing
from tests.helpers.background import in_background
from tests.helpers.jobs.serving import Service

LOOK_S = 0.1
WINDOW_S = 0.5
SETTLED_SHARE = 0.3
"""Of a processor: who takes less, beyond what it took before, has stopped."""

LONGEST_S = 60.0
"""Nobody is waited for longer than this."""

MOST_BYTES = 3 << 30
"""Where a service takes more, what takes most of it is killed, before the machine is full."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What came of an attack, and in how many seconds; the longest answer of `/health`, of a server beside the service that does nothing
    at all, and of a neighbour's request; the peak of memory by kind of process, beyond what there was; for how long the service computed
    after the attack."""

    outcome: str
    seconds: float
    stall_s: float
    noise_s: float
    neighbour_s: float
    refusals: tuple[str, ...]
    memory: Mapping[str, int]
    settled_s: float

    @property
    def own_stall_s(self) -> float:
        """The stall without what the machine is to blame for."""
        return max(0.0, self.stall_s - self.noise_s)

    @property
    def memory_bytes(self) -> int:
        """Of all processes together."""
        return self.memory["all"]


def measured(act: Callable[[], str], service: Service, *, noise_url: str, neighbour: str, idle_kinds: set[str]) -> Cost:
    """The cost of an attack. Processes of `idle_kinds` serve nobody but whoever attacks."""
    rest = _busy(service.process.pid, idle_kinds)
    with ExitStack() as stack:
        memory = stack.enter_context(_peaks(service))
        noise = stack.enter_context(probing(noise_url))
        health = stack.enter_context(probing(f"{service.url}/health"))
        other = stack.enter_context(asking(service, neighbour))
        begun = monotonic()
        outcome = act()
        ended = monotonic()
        settled_s = _settled(service.process.pid, idle_kinds, rest + SETTLED_SHARE)
        stall_s, noise_s = health.longest_s, noise.longest_s
    return Cost(
        outcome=outcome,
        seconds=ended - begun,
        stall_s=stall_s,
        noise_s=noise_s,
        neighbour_s=other.longest_s,
        refusals=tuple(other.refusals),
        memory=dict(memory),
        settled_s=settled_s,
    )


def _settled(service: int, kinds: set[str], most: float) -> float:
    """Seconds until these processes take less than `most` of a processor, at most `LONGEST_S`."""
    begun = monotonic()
    while monotonic() - begun < LONGEST_S:
        looked = monotonic() - begun
        if _busy(service, kinds) < most:
            return looked
    return LONGEST_S


def _busy(service: int, kinds: set[str]) -> float:
    """The processors that these processes take."""
    before, begun = cpu_seconds(service), monotonic()
    sleep(WINDOW_S)
    after, passed = cpu_seconds(service), monotonic() - begun
    taken = (seconds - before.get(one, 0.0) for one, seconds in after.items() if one.kind in kinds)
    return sum(taken) / passed


@contextmanager
def _peaks(service: Service) -> Iterator[Mapping[str, int]]:
    """The peak of each kind of process beyond what it has now, and of all together."""
    count, peaks = MemoryCount(), {"all": 0}
    first = count.of(service.process.pid)

    def look(is_over: threading.Event) -> None:
        while not is_over.wait(LOOK_S):
            now = count.of(service.process.pid)
            beyond = {kind: size - first.get(kind, 0) for kind, size in now.items()}
            beyond["all"] = sum(beyond.values())
            for kind, size in beyond.items():
                peaks[kind] = max(peaks.get(kind, 0), size)
            if beyond["all"] > MOST_BYTES:
                kill_kind(service.process.pid, max(set(beyond) - {"all"}, key=lambda kind: beyond[kind]))

    with in_background(look):
        yield peaks
