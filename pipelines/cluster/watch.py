"""Whether the cluster that this process is connected to is still there: its control store (GCS), and the raylet of this node.

Ray waits a minute for a control store that is gone, and then ends the process without a word. So both are asked whether they accept a
connection, and a run that has lost one ends while it still can.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pipelines.cluster.last_resort import LastResort
from pipelines.cluster.ray_private import raylet_socket
from pipelines.errors import ClusterLostError

logger = logging.getLogger(__name__)

POLL_S: Final = 1.0
CONNECT_S: Final = 2.0
OWN_PATIENCE_S: Final = 2.5
"""No process restarts a part of a cluster of our own."""

GIVEN_PATIENCE_S: Final = 15.0
"""The control store of a given cluster may be restarted by its operator."""

CLEANING_UP_S: Final = 8.0
"""Ray ends the process about 15 s after the loss of the raylet."""


class ClusterWatch:
    """Asks every part, named, whether it accepts a connection. One that did not for its patience is lost."""

    def __init__(
        self, parts: Mapping[str, tuple[Callable[[], bool], float]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts, self._clock = parts, clock
        self._seen = dict.fromkeys(parts, clock())
        self._loss: str | None = None

    def look(self) -> str | None:
        """Asks all parts; what is lost, if anything is."""
        for name, (accepts, patience_s) in self._parts.items():
            now = self._clock()
            if accepts():
                self._seen[name] = now
            elif self._loss is None and now - self._seen[name] >= patience_s:
                silent_s = now - self._seen[name]
                self._loss = (
                    f"the Ray cluster is lost: its {name} has accepted no connection for {silent_s:.0f} s; what is committed "
                    "stays, run again to go on"
                )
        return self._loss

    def check(self) -> None:
        """Raises:
        ClusterLostError: a part of the cluster is lost.
        """
        if self._loss is not None:
            raise ClusterLostError(self._loss)


@contextlib.contextmanager
def watching_cluster(last_resort: LastResort, *, is_own: bool) -> Iterator[ClusterWatch]:
    """Watches the connected cluster from a thread while the context is open; a loss sets the last resort."""
    watch = ClusterWatch(_parts(is_own=is_own))
    is_over = threading.Event()

    def look_on() -> None:
        while not is_over.wait(POLL_S):
            loss = watch.look()
            if loss is not None:
                logger.debug("%s", loss)
                last_resort.set(after_s=CLEANING_UP_S, status=1, message=loss)
                return

    thread = threading.Thread(target=look_on, name="millrace-cluster", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()


def _parts(*, is_own: bool) -> dict[str, tuple[Callable[[], bool], float]]:
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    raylet = raylet_socket()
    return {
        "control store (GCS)": (
            lambda: _accepts(socket.AF_INET6 if ":" in host else socket.AF_INET, (host.strip("[]"), int(port))),
            OWN_PATIENCE_S if is_own else GIVEN_PATIENCE_S,
        ),
        "raylet on this machine": (lambda: _accepts(socket.AF_UNIX, raylet), OWN_PATIENCE_S),
    }


def _accepts(family: socket.AddressFamily, place: str | tuple[str, int]) -> bool:
    """Whether a process listens; one that is only slow to accept counts as listening."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(place)
        except (TimeoutError, BlockingIOError):
            return family is socket.AF_UNIX
        except OSError:
            return False
    return True
