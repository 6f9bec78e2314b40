"""JSON bodies are counted before they are parsed, so that a small body cannot become a large thing.

    app.router.route_class = route_class_of(limits)

A list or an object of two characters takes a hundred bytes, so 8 MiB of them would take a gigabyte and stop the service meanwhile.
They are counted in linear time, by arrays of bytes, and a text's own brackets and commas do not count. What is left takes little
memory, and is parsed by orjson on a thread: linear in time too, whatever the numbers, at most 1,024 deep, and UTF-8 only.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from actors.http.errors import ApiError
from actors.http.limits import RequestLimits
from actors.http.sse import ClientGoneError

AT_ONCE_BYTES = 1 << 16
"""A body up to this size is parsed where it is: that takes less time than to hand it to a thread."""

_QUOTE, _COMMA = b'",'
_OPENING = b"[{"


class JsonRequest(Request):
    """A request whose body has been parsed within the limits."""

    _found: Any = None

    async def parse(self, limits: RequestLimits) -> None:
        """Reads the body and parses it.

        Raises:
            ApiError: 400, it holds too much.
            RequestValidationError: it is not JSON.
            ClientGoneError: the client left before it had sent the body.
        """
        try:
            body = await self.body()
        except ClientDisconnect as error:
            raise ClientGoneError from error
        if len(body) <= AT_ONCE_BYTES:
            self._found = parsed(body, limits)
        else:
            self._found = await asyncio.to_thread(parsed, body, limits)

    async def json(self) -> Any:
        """What `parse` found."""
        return self._found


def route_class_of(limits: RequestLimits) -> type[APIRoute]:
    """The class of routes whose JSON bodies keep these limits."""

    class JsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            if self.body_field is None:
                return handle

            async def parse_and_handle(request: Request) -> Response:
                parsing = JsonRequest(request.scope, request.receive)
                await parsing.parse(limits)
                return await handle(parsing)

            return parse_and_handle

    return JsonRoute


def parsed(body: bytes, limits: RequestLimits) -> Any:
    """What a body says; an empty one says null.

    Raises:
        ApiError: 400, it holds too many values.
        RequestValidationError: it is not JSON.
    """
    if not body:
        return None
    _check_count(body, limits)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestValidationError([{"type": "json_invalid", "loc": ("body", error.pos), "msg": error.msg}]) from None


def _check_count(body: bytes, limits: RequestLimits) -> None:
    """Counts what stands outside of texts. A body that is too short to hold too much is not looked at."""
    if len(body) <= min(limits.max_values, limits.max_parts):
        return
    characters = np.frombuffer(body.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    is_quote = characters == _QUOTE
    outside = characters[(np.cumsum(is_quote, dtype=np.uint8) & 1) == 0]  # a count modulo 256 is odd where the count is
    num_parts = int(is_quote.sum()) // 2 + sum(int((outside == each).sum()) for each in _OPENING)
    num_values = int((outside == _COMMA).sum()) + 1
    for count, most, what in (
        (num_parts, limits.max_parts, "texts, lists and objects"),
        (num_values, limits.max_values, "values"),
    ):
        if count > most:
            raise ApiError(
                400,
                f"the body holds {count} {what}; at most {most} are possible: send less, in several requests",
                code="body_too_complex",
            )
