"""Who asks: whole requests, and requests whose client leaves."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import httpx

from tests.helpers.jobs.serving import KEY, Service

TIMEOUT_S = 90.0
MAX_ERROR_BYTES = 4096
NO_ANSWER, OTHER_SHAPE, TOO_LONG = "no answer", "in another shape", "an error"
"""What no client may be told: `TOO_LONG` gives back what it was given."""

HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def post(service: Service, path: str, body: bytes) -> str:
    """The status of the answer, and the code of its error."""
    try:
        answer = httpx.post(service.url + path, content=body, headers=HEADERS, timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        return f"{NO_ANSWER}: {type(error).__name__}"
    return status_of(answer)


def post_and_leave(service: Service, path: str, body: bytes, *, after_s: float) -> str:
    """Sends a request and closes the connection before an answer can come."""
    try:
        answer = httpx.post(service.url + path, content=body, headers=HEADERS, timeout=after_s)
    except httpx.TimeoutException:
        return f"left after {after_s:g} s"
    return status_of(answer)


def get_many(service: Service, path: str, count: int) -> str:
    """So many requests at once, without a key."""
    return asyncio.run(_get_many(service, path, count))


def stream_and_leave(service: Service, body: Mapping[str, Any], count: int, *, after_s: float) -> str:
    """So many streamed completions at once, whose clients all leave."""
    return asyncio.run(_stream_and_leave(service, body, count, after_s))


def status_of(answer: httpx.Response) -> str:
    """The status, with the error's code or field where it is in OpenAI's shape."""
    if answer.status_code < 400:
        return str(answer.status_code)
    if answer.headers["content-type"] != "application/json":
        return f"{answer.status_code} {OTHER_SHAPE}"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    if len(answer.content) > MAX_ERROR_BYTES:
        return f"{answer.status_code} {TOO_LONG} of {len(answer.content)} bytes"
    return " ".join(str(part) for part in (answer.status_code, error["code"] or error["param"]) if part)


async def _get_many(service: Service, path: str, count: int) -> str:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S, limits=limits) as http:
        answers = await asyncio.gather(*(http.get(path) for _ in range(count)))
    statuses = sorted({answer.status_code for answer in answers})
    return f"{count} answers: {', '.join(map(str, statuses))}"


async def _stream_and_leave(service: Service, body: Mapping[str, Any], count: int, after_s: float) -> str:
    limits = httpx.Limits(max_connections=count)
    num_left = 0

    async def one(http: httpx.AsyncClient) -> None:
        nonlocal num_left
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(after_s), http.stream("POST", "/v1/completions", json=dict(body)) as answer:
                await answer.aread()
                return
        num_left += 1

    async with httpx.AsyncClient(base_url=service.url, headers=HEADERS, timeout=TIMEOUT_S, limits=limits) as http:
        await asyncio.gather(*(one(http) for _ in range(count)))
    return f"{num_left} of {count} left"
