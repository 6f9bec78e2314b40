"""An S3 server on loopback that misbehaves on purpose: a proxy in front of a healthy one, with faults that are asked for by request.

    with FaultyStore(endpoint_url) as proxy:
        proxy.add(Fault("PUT", "/lease.json", lose_answer, times=1))
        ...                                       # requests go to proxy.url
        proxy.seen("PUT", "/lease.json")          # when they came

A fault says what becomes of one request; the healthy server is asked first, last or not at all.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

_HOP_BY_HOP = ("connection", "transfer-encoding", "content-length", "date", "server", "expect")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: `body_sent` of the bytes that the headers promise, or all of them."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool = False


Forward = Callable[[], Answer]
Act = Callable[[Forward], Answer | None]
"""Makes the answer to a request, which `Forward` passes on to the healthy server; None closes the connection without one."""


@dataclass(slots=True)
class Fault:
    """What becomes of the next `times` requests of a method whose path, with its query, matches."""

    method: str
    path: str
    act: Act
    times: int = 1 << 30


def lose_answer(forward: Forward) -> None:
    """The request is carried out, and nobody hears of it."""
    forward()


def lose_request(forward: Forward) -> None:
    """The connection is closed before the request reaches the server."""
    del forward


def cut_body(forward: Forward) -> Answer:
    """Half of the body comes."""
    whole = forward()
    return Answer(whole.status, whole.headers, whole.body, is_cut=True)


def refuse(status: int, code: str) -> Act:
    """Answers with an error of S3's kind; the server is not asked."""

    def act(forward: Forward) -> Answer:
        del forward
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>said the proxy</Message></Error>'
        )
        return Answer(status, {"Content-Type": "application/xml"}, text.encode())

    return act


class FaultyStore:
    """The proxy. Without faults it passes everything on."""

    def __init__(self, endpoint_url: str) -> None:
        target = urlsplit(endpoint_url)
        self._host, self._port = str(target.hostname), target.port
        self.faults: list[Fault] = []
        self._seen: list[tuple[str, str, float]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, ValueError):
                    self.close_connection = True

            def do(self) -> None:
                proxy._handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyStore":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, *faults: Fault) -> None:
        """From now on these faults happen; of several that match a request, the first."""
        with self._lock:
            self.faults += faults

    def heal(self) -> None:
        """From now on everything is passed on."""
        with self._lock:
            self.faults.clear()

    def seen(self, method: str, path: str) -> list[float]:
        """When requests came whose method is this and whose path matches, in seconds of the monotonic clock."""
        with self._lock:
            return [
                at for seen_method, seen_path, at in self._seen if seen_method == method and re.search(path, seen_path)
            ]

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Storage options of the healthy server, as those of this one."""
        return options | {"client_kwargs": options["client_kwargs"] | {"endpoint_url": self.url}}

    def _act_of(self, method: str, path: str) -> Act:
        with self._lock:
            self._seen.append((method, path, time.monotonic()))
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.act
        return lambda forward: forward()

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = b"".join(_body(request))
        answer = self._act_of(request.command, request.path)(lambda: self._forward(request, body))
        if answer is None:
            request.close_connection = True
            return
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            request.send_header(name, value)
        if "Content-Length" not in answer.headers:
            request.send_header("Content-Length", str(len(answer.body)))
        request.end_headers()
        request.wfile.write(answer.body[: len(answer.body) // 2] if answer.is_cut else answer.body)
        request.close_connection = request.close_connection or answer.is_cut

    def _forward(self, request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        connection = HTTPConnection(self._host, self._port, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(request.command, request.path, body, headers | {"Content-Length": str(len(body))})
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
            if request.command == "HEAD":
                kept["Content-Length"] = response.getheader("Content-Length", "0")
            return Answer(response.status, kept, response.read())
        finally:
            connection.close()


def _body(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """The bytes of a request's body, chunked or not."""
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        yield request.rfile.read(int(request.headers.get("Content-Length") or 0))
        return
    while size := int(request.rfile.readline().split(b";")[0], 16):
        yield request.rfile.read(size)
        request.rfile.readline()
    while request.rfile.readline().strip():
        pass
