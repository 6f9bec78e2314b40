"""Bodies of requests are read within bounds: only where a route takes one, in time, up to a size
each, and up to a size for all at once. Plain ASGI.

A body is read when the app asks for it, so that nothing is read for clients without a key. An
answer that is ready before the body has come closes the connection, after a moment in which the
rest is thrown away: a client that still sends could not read it otherwise.

The same bounds stand in two processes (see `actors.serve.proxy`): each holds what the other has not asked for yet.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.errors import OverloadedError
from actors.http.errors import ApiError, api_error
from actors.http.limits import RequestLimits
from actors.http.sse import ClientGoneError

BODY_PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/classify",
    "/v1/extract",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
)
"""Where a POST has a body; nothing else does. Serve's proxy, which does not have the app, has to know as well."""

LINGER_S = 1.0
"""How long the rest of a body is thrown away before its connection is closed."""

GONE: Message = {"type": "http.disconnect"}
CLOSE = (b"connection", b"close")


def takes_body(scope: Scope) -> bool:
    """Whether a request's route takes a body, wherever the app is mounted; for any other it is as if there were none."""
    path: str = scope["path"]
    return scope["method"] == "POST" and path.endswith(BODY_PATHS)


class BodyBounds:
    """Hands bodies on as they come. What breaks a bound is answered here, with 408, 413 or 429; the app is told that its client has
    gone."""

    def __init__(self, app: ASGIApp, *, limits: RequestLimits, clock: Callable[[], float] = monotonic) -> None:
        self._app, self._limits, self._clock = app, limits, clock
        self._in_flight = BytesInFlight(limits.max_bodies_bytes)
        self._leftovers = Leftovers(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._in_flight.counting() as count:
            body = IncomingBody(scope, receive, limits=self._limits, count=count, clock=self._clock)
            answer = ClosingAnswer(body, send, self._leftovers)
            try:
                await self._app(scope, body.receive if takes_body(scope) else body.receive_nothing, answer.send)
            except ClientGoneError:
                if body.refusal is None:
                    raise
            if body.refusal is not None and not answer.has_begun:
                await body.refusal.response()(scope, receive, answer.send_refusal)


class BytesInFlight:
    """Counts the bytes of all bodies that are being read."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0

    def counting(self) -> "BodyCount":
        """The count of one more body."""
        return BodyCount(self)


class BodyCount:
    """The bytes of one body. They stop counting with the context, or once the body is whole."""

    def __init__(self, all_bodies: BytesInFlight) -> None:
        self._all, self.num_bytes, self._is_counted = all_bodies, 0, True

    def __enter__(self) -> "BodyCount":
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def add(self, num_bytes: int) -> None:
        """More of the body has come.

        Raises:
            OverloadedError: all bodies together are over their limit.
        """
        self.num_bytes += num_bytes
        self._all.num_bytes += num_bytes
        if self._all.num_bytes > self._all.max_bytes:
            raise OverloadedError(
                f"bodies of {self._all.num_bytes} bytes are being read; at most {self._all.max_bytes} are at once"
            )

    def finish(self) -> None:
        """The body is read, or will not be."""
        if self._is_counted:
            self._is_counted = False
            self._all.num_bytes -= self.num_bytes


class IncomingBody:
    """The body of one request. `refusal` is what its client is told once a bound was broken; `is_read` says whether all of it has come."""

    def __init__(
        self, scope: Scope, receive: Receive, *, limits: RequestLimits, count: BodyCount, clock: Callable[[], float]
    ) -> None:
        self._receive, self._limits, self._count, self._clock = receive, limits, count, clock
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self._declared = int(declared[:20]) if declared.isdigit() else 0
        self.is_read = self._declared == 0 and b"transfer-encoding" not in headers
        self.refusal: ApiError | None = None
        self._deadline: float | None = None

    async def receive(self) -> Message:
        """The next message of the body within the bounds; then that the client has gone, when it has."""
        if self.refusal is not None:
            return GONE
        if self.is_read:
            return await self._receive()
        try:
            return await self._next()
        except (ApiError, OverloadedError) as error:
            self.refusal = api_error(error, retry_after_s=self._limits.retry_after_s)
            self._count.finish()
            return GONE

    async def receive_nothing(self) -> Message:
        """No body at first; then that the client has gone, when it has. Who sends a body all the same is not watched: it would have to
        be read."""
        if self._deadline is None:
            self._deadline = self._clock()
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self.is_read:
            await asyncio.Event().wait()  # until the answer is sent, which cancels this
        return await self._receive()

    async def discard(self, max_bytes: int) -> None:
        """Throws the rest away, up to a limit in bytes."""
        while max_bytes > 0:
            message = await self._receive()
            max_bytes -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    async def _next(self) -> Message:
        limits, now = self._limits, self._clock()
        if self._deadline is None:
            self._deadline = now + limits.body_s
        self._check_size(self._declared)
        left_s = self._deadline - now
        try:
            async with asyncio.timeout(max(0.0, min(left_s, limits.body_idle_s))):
                message = await self._receive()
        except TimeoutError:
            raise self._too_slow(left_s) from None
        if message["type"] != "http.request":
            return message
        self._count.add(len(message.get("body", b"")))
        self._check_size(self._count.num_bytes)
        if not message.get("more_body", False):
            self.is_read = True
            self._count.finish()
        return message

    def _check_size(self, num_bytes: int) -> None:
        most = self._limits.max_body_bytes
        if num_bytes > most:
            raise ApiError(
                413, f"the body is over {most} bytes, which is the most this service takes", code="body_too_large"
            )

    def _too_slow(self, left_s: float) -> ApiError:
        limits, came = self._limits, f"{self._count.num_bytes} bytes of the body came"
        if left_s <= limits.body_idle_s:
            said = f"{came} in {limits.body_s:g} s; a whole one must come within that time"
        else:
            said = f"{came}, then none for {limits.body_idle_s:g} s"
        return ApiError(408, f"{said}: send it faster, or in several requests", code="body_too_slow")


class Leftovers:
    """Throws away the rests of bodies that are answered already: each for a moment, and no more of them at once than may be read."""

    def __init__(self, limits: RequestLimits) -> None:
        self._max_bytes, self._room = limits.max_body_bytes, limits.max_bodies_bytes // limits.max_body_bytes

    async def discard(self, body: IncomingBody) -> None:
        """Throws away the rest of a body, where there is room for one more."""
        if not self._room:
            return
        self._room -= 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await body.discard(self._max_bytes)
        finally:
            self._room += 1


class ClosingAnswer:
    """The answer to one request. It closes the connection if the body has not been read when it begins."""

    def __init__(self, body: IncomingBody, send: Send, leftovers: Leftovers) -> None:
        self._body, self._send, self._leftovers = body, send, leftovers
        self.has_begun = self._closes = False

    async def send(self, message: Message) -> None:
        """Passes a message of the app on. An app that was told that its client has gone is not heard any more."""
        if self._body.refusal is None or self.has_begun:
            await self.send_refusal(message)

    async def send_refusal(self, message: Message) -> None:
        """Passes a message on."""
        if message["type"] == "http.response.start":
            self.has_begun, self._closes = True, not self._body.is_read
            if self._closes:
                message = {**message, "headers": [*message.get("headers", ()), CLOSE]}
        elif self._closes and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._leftovers.discard(self._body)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)
