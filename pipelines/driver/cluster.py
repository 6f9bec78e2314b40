"""The cluster of a run: connected to when it is first needed, left before the run's lease is given back.

What a cluster of the run's own would leave behind is part of the last resort.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.cluster.connect import Room, check_place, connected, will_start_one
from pipelines.cluster.last_resort import LastResort
from pipelines.cluster.leftovers import end_leftovers
from pipelines.cluster.ray_output import Chatter, quiet_ray
from pipelines.cluster.ray_private import default_temporary_folder
from pipelines.cluster.watch import ClusterWatch, watching_cluster
from pipelines.job import EngineSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A cluster that the driver is connected to: the room on it for each step, where its chatter goes, and whether it is still there."""

    rooms: tuple[Room, ...]
    chatter: Chatter
    watch: ClusterWatch


class RunCluster:
    """The cluster at `address`, or one of the run's own, with room for the engines of each step."""

    def __init__(
        self,
        engines: Sequence[EngineSpec],
        address: str | None,
        last_resort: LastResort,
        take_signals: Callable[[], None],
    ) -> None:
        """`take_signals` is called when the cluster is connected: Ray has taken SIGTERM for itself then."""
        self._engines, self._address = engines, address
        self._last_resort, self._take_signals = last_resort, take_signals
        self._stack = contextlib.ExitStack()
        self._connection: Connection | None = None

    def check(self) -> None:
        """Looks whether there is such a cluster, or a place for one; within seconds.

        Raises:
            ClusterError: there is not.
        """
        check_place(self._address)

    def connect(self) -> Connection:
        """Connects, or starts a cluster and connects; the connection that there is if there is one.

        Raises:
            ClusterError: there is no such cluster, or it is too small for the engines.
        """
        if self._connection is None:
            self._connection = self._connected()
        return self._connection

    def close(self) -> None:
        """Disconnects, and ends a cluster of the run's own. May be called again."""
        self._connection = None
        self._stack.close()

    def _connected(self) -> Connection:
        began = time.monotonic()
        is_own = will_start_one(self._address)
        if is_own:
            end_processes = partial(end_leftovers, default_temporary_folder())
            self._stack.enter_context(self._last_resort.giving_back(end_processes))
        chatter = self._stack.enter_context(quiet_ray())
        rooms = self._stack.enter_context(connected(self._engines, self._address))
        chatter.move_to_session()
        watch = self._stack.enter_context(watching_cluster(self._last_resort, is_own=is_own))
        self._take_signals()
        logger.info("Ray is up after %.1f s", time.monotonic() - began)
        return Connection(rooms=rooms, chatter=chatter, watch=watch)
