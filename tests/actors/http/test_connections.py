"""Connections that wait for a request's head end; those that are served do not."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

import actors.http.connections
from actors.http.connections import MAX_HEAD_BYTES, BoundedConnection
from tests.helpers.actors.raw_http import PATIENCE_S, connection, until_closed

HEAD_S, IDLE_S = 0.3, 0.6
LONG_S = 1.5
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def slow_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers /slow after longer than a head may take."""
    if scope["path"] == "/slow":
        await asyncio.sleep(LONG_S)
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, closing(socket.create_server(("127.0.0.1", 0))) as listening:
        patch.setattr(actors.http.connections, "HEAD_S", HEAD_S)
        patch.setattr(actors.http.connections, "IDLE_S", IDLE_S)
        config = uvicorn.Config(
            slow_app, http=BoundedConnection, log_level="warning", lifespan="off", timeout_keep_alive=3600
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", REQUEST[:-2], b"\r\n"], ids=["nothing", "line", "head", "newline"])
def test_a_connection_without_a_whole_head_is_closed(address: str, sent: bytes) -> None:
    with connection(address) as found:
        found.sendall(sent)
        assert until_closed(found) == b""


def test_a_head_that_trickles_is_closed(address: str) -> None:
    with connection(address) as found:
        found.settimeout(HEAD_S / 4)
        found.sendall(REQUEST[:-2])
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                found.sendall(b"X-A: b\r\n")
                if found.recv(1) == b"":
                    return
            except TimeoutError:
                pass
            except OSError:
                return
    pytest.fail("it was never closed")


@pytest.mark.parametrize("sent", [b"", b"G"], ids=["silent", "a byte"])
def test_a_connection_that_idles_after_an_answer_is_closed(address: str, sent: bytes) -> None:
    with connection(address) as found:
        found.sendall(REQUEST)
        first = found.recv(1 << 16)
        found.sendall(sent)
        assert (first + until_closed(found)).endswith(b"ok")


def test_a_head_over_the_limit_is_closed(address: str) -> None:
    with connection(address) as found:
        found.sendall(REQUEST[:-2])
        try:
            for _ in range(2 * MAX_HEAD_BYTES // 1000):
                found.sendall(b"X-Long: " + b"x" * 1000 + b"\r\n")
            found.sendall(b"\r\n")
            answer = until_closed(found)
        except ConnectionError:
            answer = b""
    assert b"200 OK" not in answer


@pytest.mark.slow
def test_an_answer_and_a_body_may_take_longer_than_a_head(address: str) -> None:
    with connection(address) as found:
        found.sendall(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na")
        time.sleep(LONG_S + IDLE_S)
        found.sendall(b"b")
        assert until_closed(found).endswith(b"ok")


@pytest.mark.slow
def test_two_requests_in_one_piece_are_both_answered(address: str) -> None:
    with connection(address) as found:
        found.sendall(REQUEST.replace(b"GET /", b"GET /slow") + REQUEST)
        assert until_closed(found).count(b"200 OK") == 2
