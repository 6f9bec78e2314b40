"""Connections that wait for a request end: before the first one, between two, and in the middle of a head. For uvicorn.

    uvicorn.Config(app, http=BoundedConnection)

uvicorn itself ends only connections that fall silent after an answer, and reads a head of any size.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S: Final = 10.0
"""From the opening of a connection to the end of the first request's head."""

IDLE_S: Final = 75.0
"""From an answer to the end of the next request's head."""

MAX_HEAD_BYTES: Final = 64 << 10


class BoundedConnection(HttpToolsProtocol):
    """An HTTP/1.1 connection. It is closed if the first head does not come within `HEAD_S` seconds, a later one within `IDLE_S`, or one
    is over `MAX_HEAD_BYTES`."""

    _waiting: asyncio.TimerHandle | None = None
    _num_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._wait(HEAD_S)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waiting is None:
            return
        self._num_bytes += len(data)
        if self._num_bytes > MAX_HEAD_BYTES:
            self._end()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request is here already
            self._wait(IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._num_bytes = 0
        self._waiting = self.loop.call_later(seconds, self._end)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self) -> None:
        self._stop_waiting()
        self.transport.close()
