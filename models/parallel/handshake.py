"""How a rank and rank 0 prove to each other that they know the secret of their replica, before either believes a word.

    follower -> rank 0    hello: magic, seat, a nonce of the follower's
    rank 0 -> follower    a nonce of rank 0's, rank 0's proof
    follower -> rank 0    the follower's proof
    rank 0 -> follower    welcome: the first message of the channel, empty

A proof is a MAC under the secret over the name of who proves, the seat and both nonces, so neither an old one nor the other
side's can be shown again. All messages have fixed sizes: of a stranger at most `HELLO_BYTES` + `MAC_BYTES` are read. The keys of
the channel come from the same words, so a process that only hands a handshake on cannot write into
its channel.

This keeps out attackers that can connect to rank 0, answer in its place, or change packets on
their way. One that can read packets reads the channel, but learns neither the secret nor the keys.
"""

import hmac
import secrets
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from models.errors import EngineError
from models.parallel.channel import MAC_BYTES, Channel, mac, receive_exactly, seconds_until

SECRET_BYTES = NONCE_BYTES = 32
WELCOME = b""

Purpose = Literal["calls", "store"]

_PURPOSES: tuple[Purpose, ...] = ("calls", "store")
_MAGIC = b"millrace"
_HELLO = struct.Struct(f"<{len(_MAGIC)}sBI{NONCE_BYTES}s")
HELLO_BYTES = _HELLO.size


@dataclass(frozen=True, slots=True)
class Seat:
    """What a connection to rank 0 is for, and the rank at its other end."""

    purpose: Purpose
    rank: int


def introduce(connection: socket.socket, secret: bytes, seat: Seat, *, end: float) -> Channel:
    """The follower's side, over by `end` on the monotonic clock.

    Raises:
        EngineError: the other end does not know the secret.
        OSError: it ended the connection, or did not answer in time.
    """
    hello = _HELLO.pack(_MAGIC, _PURPOSES.index(seat.purpose), seat.rank, secrets.token_bytes(NONCE_BYTES))
    _send(connection, hello, end)
    answer = bytes(receive_exactly(connection, NONCE_BYTES + MAC_BYTES, end=end))
    nonce, proof = answer[:NONCE_BYTES], answer[NONCE_BYTES:]
    said = hello + nonce
    if not hmac.compare_digest(proof, _derived(secret, b"rank 0 proves", said)):
        raise EngineError(
            "the answer does not prove that it is rank 0's: it was made without the secret of this replica"
        )
    _send(connection, _derived(secret, b"a follower proves", said), end)
    channel = Channel(
        connection,
        sending_key=_derived(secret, b"a follower sends", said),
        receiving_key=_derived(secret, b"rank 0 sends", said),
    )
    connection.settimeout(seconds_until(end))
    channel.receive()
    return channel


def greet(connection: socket.socket, secret: bytes, *, end: float) -> tuple[Seat, Channel]:
    """Rank 0's side, over by `end` on the monotonic clock, except for the welcome: `WELCOME` is to
    be sent once the seat is given.

    Raises:
        EngineError: the other end does not know the secret.
        OSError: it ended the connection, or did not answer in time.
    """
    hello = bytes(receive_exactly(connection, HELLO_BYTES, end=end))
    magic, purpose, rank, _ = _HELLO.unpack(hello)
    if magic != _MAGIC or purpose >= len(_PURPOSES):
        raise EngineError("it does not speak as a rank does")
    nonce = secrets.token_bytes(NONCE_BYTES)
    said = hello + nonce
    _send(connection, nonce + _derived(secret, b"rank 0 proves", said), end)
    proof = bytes(receive_exactly(connection, MAC_BYTES, end=end))
    if not hmac.compare_digest(proof, _derived(secret, b"a follower proves", said)):
        raise EngineError("it does not know the secret of this replica")
    channel = Channel(
        connection,
        sending_key=_derived(secret, b"rank 0 sends", said),
        receiving_key=_derived(secret, b"a follower sends", said),
    )
    return Seat(_PURPOSES[purpose], rank), channel


def _send(connection: socket.socket, content: bytes, end: float) -> None:
    connection.settimeout(seconds_until(end))
    connection.sendall(content)


def _derived(secret: bytes, use: bytes, said: bytes) -> bytes:
    """A proof or key for one use: no two uses share one."""
    return mac(secret, b"millrace " + use + b"\0" + said)
