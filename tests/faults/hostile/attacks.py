"""Every attack: who it is that can do it, what they do, and what it may cost."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tests.faults.hostile import bodies, checkpoints, client, connections
from tests.faults.hostile.site import ANSWERS, HEAD, HOSTILE, LONG
from tests.helpers.jobs.serving import KEY, Service
from tests.helpers.models.template_bombs import BOMBS

Who = Literal["a stranger", "a key holder", "a checkpoint's author"]
CHAT = "/v1/chat/completions"
LEAVES_S = 1.0
HELD_S = 15.0
FLOOD_STALL_S = 2.0
"""What hundreds of requests at once may do, each of which is little: they wait for each other, and `/health` for them."""

BODY_BYTES = 8_000_000
ATTACKED = frozenset({LONG, HEAD, ANSWERS, HOSTILE, "proxy", "_http"})
"""Kinds of processes that do nothing but what an attack has them do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """`max_s` is within how many seconds its request has its answer, where there is a bar; `max_stall_s` is how long `/health` may
    stall. `crashes` says that it ends the process it is worked on in, which is a 500 of the service's own."""

    name: str
    who: Who
    prepare: Callable[[], "Prepared"]
    max_s: float | None = None
    max_stall_s: float = 0.5
    crashes: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An attack that can begin; it says what came of it. `num_bytes` are what its requests are long that the service has to hold."""

    act: Callable[[Service], str]
    num_bytes: int = 0


def attacks() -> Iterable[Attack]:
    """All, those that take the least first."""
    yield from _shapes()
    yield from _connections()
    yield from _floods()
    yield from _work()
    yield from _tokenizers()
    yield from _templates()


def _shapes() -> Iterable[Attack]:
    for name, (path, body) in {**bodies.SHAPES, **bodies.BOUNDS}.items():
        yield _request(name, path, body)


def _work() -> Iterable[Attack]:
    for name, (path, body) in bodies.WORK.items():
        yield _request(name, path, body)
        yield _left(f"{name}, the client leaves", path, body)


def _request(name: str, path: str, body: bodies.Body, *, who: Who = "a key holder", **bars: Any) -> Attack:
    def prepare() -> Prepared:
        content = body()
        return Prepared(num_bytes=len(content), act=lambda service: client.post(service, path, content))

    return Attack(name=name, who=who, prepare=prepare, **bars)


def _left(name: str, path: str, body: bodies.Body) -> Attack:
    def prepare() -> Prepared:
        content = body()
        return Prepared(
            num_bytes=len(content),
            act=lambda service: client.post_and_leave(service, path, content, after_s=LEAVES_S),
        )

    return Attack(name=name, who="a key holder", prepare=prepare)


def _connections() -> Iterable[Attack]:
    for path, key in (("/health", None), (CHAT, None), (CHAT, KEY), ("/metrics", KEY)):
        head = connections.half_body(path, BODY_BYTES, key=key)
        name = f"60 bodies of 8 MB to {path} that lack a byte, {'with a key' if key else 'without a key'}"
        yield _held(name, "a key holder" if key else "a stranger", head, body_bytes=BODY_BYTES - 1, count=60)
    head = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Header: "
    yield _held("200 requests whose headers do not end", "a stranger", head, body_bytes=0, count=200)
    yield _held("500 connections that ask for nothing", "a stranger", b"", body_bytes=0, count=500)


def _held(name: str, who: Who, head: bytes, *, body_bytes: int, count: int) -> Attack:
    """Requests that do not end. What a stranger sends is nothing that the service has to hold."""
    num_bytes = count * body_bytes if who == "a key holder" else 0

    def act(service: Service) -> str:
        return connections.hold(service.url, head, bytes(body_bytes), count=count, seconds=HELD_S)

    return _flood(name, who, act, num_bytes=num_bytes)


def _floods() -> Iterable[Attack]:
    def ask(service: Service) -> str:
        return client.get_many(service, "/ready", 200)

    def stream(service: Service) -> str:
        body = {"model": LONG, "prompt": "a", "stream": True, "max_tokens": 4000}
        return client.stream_and_leave(service, body, 200, after_s=LEAVES_S)

    yield _flood("200 requests for /ready at once", "a stranger", ask)
    yield _flood("200 streams whose clients leave", "a key holder", stream)


def _flood(name: str, who: Who, act: Callable[[Service], str], *, num_bytes: int = 0) -> Attack:
    prepared = Prepared(act=act, num_bytes=num_bytes)
    return Attack(name=name, who=who, prepare=lambda: prepared, max_stall_s=FLOOD_STALL_S)


def _tokenizers() -> Iterable[Attack]:
    panicking, exploding = (
        bodies.of_json(model=HOSTILE, prompt=text, max_tokens=1)
        for text in (checkpoints.PANICKING_TEXT, checkpoints.EXPLODING_TEXT)
    )
    yield _of_checkpoint("a tokenizer that panics", "/v1/completions", panicking, crashes=True)
    yield _of_checkpoint("a tokenizer that makes 4 GB of 4 kB", "/v1/completions", exploding)


def _templates() -> Iterable[Attack]:
    for name in BOMBS:
        yield _of_checkpoint(f"a chat template: {name}", CHAT, _chat(HOSTILE, {checkpoints.BOMB: name}))


def _chat(model: str, variables: dict[str, str]) -> bodies.Body:
    messages = [{"role": "user", "content": "hello"}]
    return bodies.of_json(model=model, messages=messages, max_tokens=1, chat_template_kwargs=variables)


def _of_checkpoint(name: str, path: str, body: bodies.Body, *, crashes: bool = False) -> Attack:
    return _request(name, path, body, who="a checkpoint's author", max_s=6.0, crashes=crashes)
