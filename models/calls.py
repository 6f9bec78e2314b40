"""How rank 0 of a replica tells the other ranks what to compute: one message a call over a plain socket to each.

Broadcasting an object over gloo takes five times as long as this (docs/performance.md), and leaves a rank waiting when rank 0 is gone,
where a socket ends at once.
"""

import pickle
import secrets
import socket
from dataclasses import dataclass
from typing import Any

from models.errors import EngineError

_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What rank 0 has the others do: a method of what they run, and its arguments."""

    method: str
    arguments: tuple[Any, ...]


class CallSender:
    """Rank 0's end. Not safe for several threads."""

    def __init__(self, host: str) -> None:
        """Listens on a free port of `host`. Whoever connects must know `secret`."""
        self.secret = secrets.token_bytes(16)
        self._listener = socket.create_server((host, 0))
        self._followers: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def accept(self, count: int, timeout_s: float) -> None:
        """Takes in the other ranks, `count` of them, and nobody after them.

        Raises:
            EngineError: one did not come in time.
        """
        self._listener.settimeout(timeout_s)
        while len(self._followers) < count:
            try:
                follower, _ = self._listener.accept()
                follower.settimeout(timeout_s)
                said = _received(follower, len(self.secret))
            except (TimeoutError, ConnectionError) as error:
                raise EngineError(f"{count - len(self._followers)} shards did not connect: {error}") from error
            if not secrets.compare_digest(said, self.secret):
                follower.close()
                continue
            follower.settimeout(None)
            follower.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._followers.append(follower)
        self._listener.close()

    def send(self, call: Call | None) -> None:
        """Hands a call, or None for the end, to every other rank.

        Raises:
            EngineError: one of them is gone.
        """
        content = pickle.dumps(call, protocol=pickle.HIGHEST_PROTOCOL)
        message = len(content).to_bytes(_LENGTH_BYTES, "little") + content
        try:
            for follower in self._followers:
                follower.sendall(message)
        except OSError as error:
            raise EngineError(f"a shard is gone: {error}") from error

    def close(self) -> None:
        """Ends the connections; whoever waits for a call sees that there will be none."""
        for each in (self._listener, *self._followers):
            each.close()


class CallReceiver:
    """The end of another rank."""

    def __init__(self, host: str, port: int, secret: bytes, timeout_s: float) -> None:
        """Raises:
        EngineError: rank 0 does not answer.
        """
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
            self._socket.settimeout(None)
            self._socket.sendall(secret)
        except OSError as error:
            raise EngineError(f"rank 0 does not answer at {host}:{port}: {error}") from error

    def receive(self) -> Call | None:
        """The next call, None for the end; waits for it.

        Raises:
            EngineError: rank 0 is gone.
        """
        try:
            length = int.from_bytes(_received(self._socket, _LENGTH_BYTES), "little")
            call: Call | None = pickle.loads(_received(self._socket, length))  # noqa: S301 - from rank 0 alone
        except OSError as error:
            raise EngineError(f"rank 0 is gone: {error}") from error
        return call

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


def _received(connection: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes.

    Raises:
        ConnectionError: the other end closed before.
    """
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        count = connection.recv_into(view[done:])
        if not count:
            raise ConnectionError("the connection was closed")
        done += count
    return content
