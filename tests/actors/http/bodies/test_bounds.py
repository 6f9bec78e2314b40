"""Bodies are read where a route takes one, after the key, in time, and so many bytes of all at once."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from actors.http.app import create_app
from actors.http.bodies.bounds import BODY_PATHS, BodyBounds
from actors.http.limits import RequestLimits
from actors.http.security import ApiKeys
from actors.online.local import LocalModel
from tests.helpers.actors import plain_http
from tests.helpers.actors.raw_http import PATIENCE_S, connection, error_of, head, status_of, until_closed
from tests.helpers.actors.serving import served, serving

pytestmark = pytest.mark.slow

KEY = "a-long-key"
WITH_KEY = {"Authorization": f"Bearer {KEY}"}
MEGABYTES = 8 << 20
PROMPT = b'{"model": "tiny", "max_tokens": 1, "prompt": "x"}'


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> ApiKeys:
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return ApiKeys(path)


@pytest.fixture(scope="module")
def patient(causal_path: Path, causal: LocalModel, keys: ApiKeys) -> Iterator[str]:
    """A service that waits an hour for a body: what it answers at once, it answers without one."""
    limits = RequestLimits(body_s=3600.0, body_idle_s=3600.0)
    with (
        pytest.MonkeyPatch.context() as patched,
        serving([served("tiny", causal_path, causal)], keys=keys, limits=limits) as address,
    ):
        patched.setattr(
            "actors.http.bodies.bounds.LINGER_S", 0.1
        )  # waited for after each answer that comes before its body
        yield address


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/health", {}, 200),
        ("GET", "/ready", {}, 200),
        ("GET", "/metrics", WITH_KEY, 200),
        ("GET", "/v1/models", WITH_KEY, 200),
        ("GET", "/v1/models/tiny", WITH_KEY, 200),
        ("POST", "/nothing", WITH_KEY, 404),
        ("POST", "/health", {}, 405),
        ("PUT", "/v1/completions", WITH_KEY, 405),
        ("POST", "/v1/completions", {}, 401),
        ("POST", "/v1/completions", {"Authorization": "Bearer wrong"}, 401),
    ],
)
def test_where_no_body_is_taken_a_half_sent_one_is_not_waited_for(
    patient: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    with connection(patient) as found:
        found.sendall(head(method, path, length=MEGABYTES, headers=headers) + b"x" * 1000)
        answer = until_closed(found)
    assert status_of(answer) == status
    assert b"connection: close" in answer.partition(b"\r\n\r\n")[0].lower()


def test_bodies_are_read_where_a_route_has_one_and_nowhere_else() -> None:
    """The paths that Serve's proxy knows as well are those of the OpenAPI document."""
    paths = create_app([]).openapi()["paths"]
    found = [
        (path, method) for path, methods in paths.items() for method, one in methods.items() if "requestBody" in one
    ]
    assert sorted(found) == [(path, "post") for path in sorted(BODY_PATHS)]


def test_a_body_of_which_nothing_comes_is_not_waited_for_either(patient: str) -> None:
    with connection(patient) as found:
        found.sendall(head("GET", "/health", length=MEGABYTES))
        assert status_of(until_closed(found)) == 200


def test_a_chunked_body_that_does_not_end_is_not_waited_for_either(patient: str) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    with connection(patient) as found:
        found.sendall(request)
        assert status_of(until_closed(found)) == 200


def test_the_whole_answer_reaches_a_client_that_sends_all_of_its_body_first(patient: str) -> None:
    """Had the connection been closed under it, it would see a reset."""
    response = httpx.request("GET", f"{patient}/health", content=b"x" * MEGABYTES, timeout=60)
    assert response.json() == {"status": "ok"}
    refused = plain_http.post(f"{patient}/v1/completions", content=b"x" * MEGABYTES, timeout=60)
    assert refused.json()["error"]["code"] == "missing_api_key"


def test_what_is_thrown_away_of_all_bodies_at_once_has_a_bound() -> None:
    """A flood of bodies that no route takes is cut, all the bodies of it together."""
    num_taken, chunk = 0, bytes(1 << 16)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("ok")(scope, receive, send)

    async def receive() -> Message:
        nonlocal num_taken
        await asyncio.sleep(0)  # the next one's turn
        num_taken += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def flood(size: int, limits: RequestLimits) -> int:
        bounds = BodyBounds(answer, limits=limits)
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/health",
            "headers": [(b"content-length", b"%d" % MEGABYTES)],
        }
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await asyncio.gather(*(bounds(scope, receive, send) for _ in range(size)))
        return sum(message["type"] == "http.response.start" for message in sent)

    assert asyncio.run(flood(16, RequestLimits(max_bodies_bytes=2 * MEGABYTES))) == 16
    assert num_taken <= 2 * MEGABYTES + 16 * len(chunk)


def test_an_answer_after_the_body_keeps_the_connection(patient: str) -> None:
    with httpx.Client(headers=WITH_KEY, timeout=60) as client:
        for _ in range(2):
            assert client.post(
                f"{patient}/v1/completions", content=PROMPT, headers={"content-type": "application/json"}
            ).is_success
        assert "connection" not in client.get(f"{patient}/health").headers


@pytest.fixture(scope="module")
def hasty(causal_path: Path, causal: LocalModel) -> Iterator[str]:
    limits = RequestLimits(body_s=2.0, body_idle_s=0.3)
    with serving([served("tiny", causal_path, causal)], limits=limits) as address:
        yield address


def test_a_body_that_stops_coming_is_408(hasty: str) -> None:
    with connection(hasty) as found:
        found.sendall(head("POST", "/v1/completions", length=len(PROMPT)) + PROMPT[:10])
        answer = until_closed(found)
    assert status_of(answer) == 408
    assert "10 bytes of the body came, then none for 0.3 s" in error_of(answer)["message"]


def test_a_body_that_trickles_is_408(hasty: str) -> None:
    """A byte every tenth of a second never pauses for long."""
    with connection(hasty) as found:
        found.sendall(head("POST", "/v1/completions", length=MEGABYTES) + b"{")
        found.settimeout(0.1)
        answer = b""
        while not answer:
            try:
                answer = found.recv(1 << 16)
            except TimeoutError:
                found.sendall(b" ")
        found.settimeout(PATIENCE_S)
        answer += until_closed(found)
    assert status_of(answer) == 408
    assert error_of(answer)["code"] == "body_too_slow"


def test_bodies_that_are_being_read_have_a_bound_together(causal_path: Path, causal: LocalModel) -> None:
    """What was declared does not count, what has come does, until its connection is gone."""
    limits = RequestLimits(
        max_body_bytes=1000, max_bodies_bytes=2000, body_s=3600.0, body_idle_s=3600.0, retry_after_s=7
    )
    with serving([served("tiny", causal_path, causal)], limits=limits) as address:

        def ask() -> httpx.Response:
            headers = {"content-type": "application/json"}
            return plain_http.post(f"{address}/v1/completions", content=PROMPT, headers=headers, timeout=60)

        with ExitStack() as stack:
            for _ in range(20):
                declaring = stack.enter_context(connection(address))
                declaring.sendall(head("POST", "/v1/completions", length=1000))
            assert ask().status_code == 200
            half_sent = [stack.enter_context(connection(address)) for _ in range(2)]
            for each in half_sent:
                each.sendall(head("POST", "/v1/completions", length=1000) + b" " * 990)
            refused = _until(ask, 429)
            assert refused.headers["retry-after"] == "7"
            assert refused.json()["error"]["code"] == "overloaded"
        _until(ask, 200)


def _until(ask: object, status: int) -> httpx.Response:
    """Bytes on their way to the server, and connections on their way to their end, take a moment."""
    assert callable(ask)
    for _ in range(1000):
        found = ask()
        assert isinstance(found, httpx.Response)
        if found.status_code == status:
            return found
    raise AssertionError(f"no {status}")
