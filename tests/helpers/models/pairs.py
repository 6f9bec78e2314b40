"""Channels whose two ends are both in this process."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.parallel.channel import Channel
from models.parallel.handshake import WELCOME, Seat, greet, introduce

PATIENCE_S = 60.0
SECRET = b"s" * 32
CALLS = Seat("calls", 1)

T = TypeVar("T")


class Running(threading.Thread, Generic[T]):
    """A function in a thread of its own; `result` waits for what it returns, or raises what it raised."""

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._found: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._found.append(self._function())
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self._error = error

    def result(self) -> T:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._found[0]


@dataclass(frozen=True)
class Pair:
    """A follower's end and rank 0's, and the sockets below them."""

    follower: Channel
    rank_0: Channel
    sockets: tuple[socket.socket, socket.socket]

    def close(self) -> None:
        self.follower.close()
        self.rank_0.close()


def connected() -> tuple[socket.socket, socket.socket]:
    """The two ends of a connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        first = socket.create_connection(server.getsockname())
        second, _ = server.accept()
    return first, second


def pair_of(seat: Seat = CALLS) -> Pair:
    """Two ends that have proved what they know."""
    follower, rank_0 = connected()
    end = time.monotonic() + PATIENCE_S
    introduced = Running(lambda: introduce(follower, SECRET, seat, end=end))
    given, greeted = greet(rank_0, SECRET, end=end)
    assert given == seat
    greeted.send(WELCOME)
    channel = introduced.result()
    for each in (channel, greeted):
        each.set_patient()
    return Pair(channel, greeted, (follower, rank_0))
