"""Connections that are held open: headers or bodies that never end, or nothing at all."""

import contextlib
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import monotonic
from urllib.parse import urlsplit

CHUNK_BYTES = 1 << 18
LOOK_S = 0.1


@dataclass(slots=True)
class Line:
    """A connection, what is still to be sent over it, and what the service did with it."""

    peer: socket.socket
    left: memoryview
    num_sent: int = 0
    has_answer: bool = False
    has_ended: bool = False


def hold(url: str, head: bytes, body: bytes, *, count: int, seconds: float) -> str:
    """Sends as much of a request as the service takes over so many connections, and holds them so long; it says what came of it."""
    with held(url, head, body, count=count) as lines:
        end = monotonic() + seconds
        while monotonic() < end and not all(line.has_ended for line in lines):
            _pump(lines)
    sent = sum(line.num_sent for line in lines)
    answered, ended = (sum(getattr(line, name) for line in lines) for name in ("has_answer", "has_ended"))
    return f"all {count} held, {sent / 1e6:.0f} MB taken, {answered} answered, {ended} ended by the service"


@contextmanager
def held(url: str, head: bytes, body: bytes, *, count: int) -> Iterator[list[Line]]:
    """The connections, open until the context ends."""
    split = urlsplit(url)
    content = memoryview(head + body)
    with ExitStack() as stack:
        lines = []
        for _ in range(count):
            peer = stack.enter_context(socket.create_connection((split.hostname, split.port), timeout=30))
            peer.setblocking(False)
            lines.append(Line(peer, content))
        yield lines


def send(lines: list[Line]) -> None:
    """Sends all there is, and waits until it is taken."""
    for line in lines:
        line.peer.setblocking(True)
        line.peer.sendall(line.left)


def half_body(path: str, num_bytes: int, *, key: str | None) -> bytes:
    """The head of a request that announces so many bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, f"Content-Length: {num_bytes}", "", ""]).encode()


def _pump(lines: list[Line]) -> None:
    """Sends what can be sent, and reads what there is to read, for `LOOK_S`."""
    with selectors.DefaultSelector() as selector:
        for line in lines:
            if not line.has_ended:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.left else 0)
                selector.register(line.peer, wanted, line)
        if not selector.get_map():
            return
        for key, events in selector.select(LOOK_S):
            _advance(key.data, events)


def _advance(line: Line, events: int) -> None:
    try:
        if events & selectors.EVENT_READ:
            received = line.peer.recv(1 << 16)
            line.has_answer |= bool(received)
            line.has_ended |= not received
        if events & selectors.EVENT_WRITE and not line.has_ended:
            with contextlib.suppress(BlockingIOError):
                sent = line.peer.send(line.left[:CHUNK_BYTES])
                line.left, line.num_sent = line.left[sent:], line.num_sent + sent
    except (ConnectionError, TimeoutError):
        line.has_ended = True
