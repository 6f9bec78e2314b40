"""Answers that end when their client goes away, whole ones and streams of server-sent events.

A stream's first event is awaited before its headers are sent, so that a request that cannot be served gets a status of its own. An
error after that is an event, and the end.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.responses import Response
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from actors.http.errors import ApiError
from actors.online.metrics import RequestNote

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
DONE = b"data: [DONE]\n\n"


class ClientGoneError(Exception):
    """The client has closed its connection: an answer would not be read."""


async def until_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes away. The request's body has been read.

    Raises:
        ClientGoneError: it went.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Sends what a generator makes as server-sent events; the generator is closed however that ends."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[BaseModel], *, note: RequestNote, explain: Callable[[Exception], ApiError]
    ) -> None:
        """`explain` tells the client's error from any other."""
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._note, self._explain = events, note, explain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_gone(receive, self._deliver(scope, receive, send))
        except (ClientGoneError, OSError):
            self._note.outcome = "499"

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                first = await anext(events)
            except Exception as error:  # noqa: BLE001 - the process boundary: whatever it was, the client gets an answer
                await self._explain(error).response()(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _send_part(send, _event(first))
            try:
                async for event in events:
                    await _send_part(send, _event(event))
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - the same
                told = self._explain(error)
                self._note.outcome = str(told.status)
                await _send_part(send, _event(told.body))
            else:
                await _send_part(send, DONE)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _event(body: BaseModel) -> bytes:
    return b"data: " + body.model_dump_json().encode() + b"\n\n"


async def _send_part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
