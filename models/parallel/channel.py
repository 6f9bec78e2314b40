"""A connection between two ranks on which neither believes a message that the other did not send.

`models.parallel.handshake` makes both ends. Every message carries a MAC (HMAC-SHA256) under a key
of this connection and direction, over its number and its content: a message that a third party
wrote, repeated, left out or moved ends the connection and is not delivered. Nothing is encrypted.
"""

import contextlib
import hmac
import socket
import time

from models.errors import EngineError

MAX_MESSAGE_BYTES = 2**30
MAC_BYTES = 32
_LENGTH_BYTES = _NUMBER_BYTES = 8


def mac(key: bytes, message: bytes) -> bytes:
    """The HMAC-SHA256 of a message, `MAC_BYTES` long (RFC 2104)."""
    return hmac.digest(key, message, "sha256")


class Channel:
    """One end. One thread may send while another receives."""

    def __init__(self, connection: socket.socket, *, sending_key: bytes, receiving_key: bytes) -> None:
        """Takes over `connection` with its timeout; each of the keys is the other one at the other end."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._sending_key, self._receiving_key = sending_key, receiving_key
        self._num_sent = self._num_received = 0

    @property
    def own_address(self) -> str:
        """The address of this machine that the other end sees."""
        address: str = self._connection.getsockname()[0]
        return address

    def set_patient(self) -> None:
        """Has `send` and `receive` wait without end from now on."""
        self._connection.settimeout(None)

    def send(self, content: bytes) -> None:
        """Hands over a message.

        Raises:
            OSError: the other end is gone.
            EngineError: it is larger than `MAX_MESSAGE_BYTES`.
        """
        if len(content) > MAX_MESSAGE_BYTES:
            raise EngineError(
                f"a message of {len(content)} bytes; between ranks at most {MAX_MESSAGE_BYTES} are allowed"
            )
        proof = mac(self._sending_key, _numbered(self._num_sent, content))
        self._connection.sendall(len(content).to_bytes(_LENGTH_BYTES, "little") + proof + content)
        self._num_sent += 1

    def receive(self) -> bytes:
        """The next message; waits for it.

        Raises:
            OSError: the other end is gone, or did not send what has arrived.
        """
        head = receive_exactly(self._connection, _LENGTH_BYTES + MAC_BYTES)
        size = int.from_bytes(head[:_LENGTH_BYTES], "little")
        if size > MAX_MESSAGE_BYTES:
            raise ConnectionError("what arrived was not sent by the other end")
        content = bytes(receive_exactly(self._connection, size))
        expected = mac(self._receiving_key, _numbered(self._num_received, content))
        if not hmac.compare_digest(head[_LENGTH_BYTES:], expected):
            raise ConnectionError("what arrived was not sent by the other end")
        self._num_received += 1
        return content

    def hang_up(self) -> None:
        """Ends the connection; a thread that waits for a message, at either end, learns that none
        will come."""
        hang_up(self._connection)

    def close(self) -> None:
        """Ends the connection and gives back its file. No thread may be waiting at this end."""
        hang_up(self._connection)
        self._connection.close()


def receive_exactly(connection: socket.socket, size: int, *, end: float | None = None) -> bytearray:
    """Exactly `size` bytes, by `end` on the monotonic clock if that is given.

    Raises:
        ConnectionError: the other end closed before.
        TimeoutError: they did not come in time.
    """
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        if end is not None:
            connection.settimeout(seconds_until(end))
        count = connection.recv_into(view[done:])
        if not count:
            raise ConnectionError("the connection was closed")
        done += count
    return content


def seconds_until(end: float) -> float:
    """What is left until `end` on the monotonic clock.

    Raises:
        TimeoutError: nothing.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def hang_up(connection: socket.socket) -> None:
    """Ends a connection, so that a thread that waits at it wakes; that thread closes it. Closed by another one, its number could be
    a new file's by the time that the thread reads."""
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def _numbered(number: int, content: bytes) -> bytes:
    return number.to_bytes(_NUMBER_BYTES, "little") + content
