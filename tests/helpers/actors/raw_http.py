"""HTTP as bytes on a socket: requests that no client library would send, or not finish."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 60.0


@contextmanager
def connection(address: str) -> Iterator[socket.socket]:
    """A connection to a server."""
    place = urlsplit(address)
    assert place.hostname is not None
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S) as found:
        yield found


def head(method: str, path: str, *, length: int, headers: Mapping[str, str] | None = None) -> bytes:
    """The head of a request with a JSON body of that length."""
    lines = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": str(length), **(headers or {})}
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
    ).encode()


def until_closed(found: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    parts = []
    while part := found.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return found
