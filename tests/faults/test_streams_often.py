"""A minute of many streaming clients, some of which leave, on two replicas of which one is killed (make faults).

Which streams were the killed replica's is seen from outside: shortly before its death it is stopped for some seconds, and what brings
text meanwhile comes from the other one. It goes on before it is killed, so that it dies in the middle of its work.
"""

import asyncio
import json
import logging
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx
import pytest

from jobs.demo import CHECKPOINTS
from models import Engine, SamplingParams
from tests.helpers.jobs.serving import KEY, Service, started_service
from tests.helpers.pipelines.killing import wait_until
from tests.helpers.pipelines.running import WORDS

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STORM_S = 60.0
NUM_CLIENTS = 32
LEAVING = 1 / 3
"""Share of the streams whose client leaves before their end."""

STREAM_S = 180.0
"""A stream that takes longer hangs. On a machine of its own one takes seconds."""

STOPPED_S, DELIVERY_S = 5.0, 2.0
"""For how long the replica is stopped, and for how long after that text of it may still be on its way."""

AT_WORK_S = 0.5
SETTLED_S = 10.0
EARLY_S = 0.05
NUM_SEQS = 16
NUM_CASES = 64
"""Also how many sequences the service takes at once: two replicas, each with as many that wait as it runs."""

CAUSAL = CHECKPOINTS / "causal"
URL = "/v1/completions"
LOST, REFUSED = "lost with engine_lost", "refused with 503 engine_lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A completion and the text that the engine alone writes."""

    prompt: str
    sampling: dict[str, Any]
    text: str = ""


@dataclass(kw_only=True, slots=True)
class Stream:
    """What a client saw of a stream: when, which text, the ids of its events, and how it ended."""

    case: Case
    begun: float
    ended: float = 0.0
    heard: list[float] = field(default_factory=list)
    text: str = ""
    ids: set[str] = field(default_factory=set)
    reasons: list[str] = field(default_factory=list)
    end: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """What happened to the replica, and when."""

    stopped: float
    resumed: float
    killed: float
    replaced: float


class LeftError(Exception):
    """The client has seen enough."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    engine = {"replicas": 2, "max_num_seqs": NUM_SEQS}
    models = [{"name": "text", "path": str(CAUSAL), "dtype": "float32", "engine": engine}]
    with started_service(tmp_path_factory.mktemp("service"), models) as service:
        yield service


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Greedy ones and seeded ones; some of the prompts begin alike."""
    draws = random.Random(20263)
    common = " ".join(draws.choices(WORDS, k=30))
    asked = [
        Case(
            prompt=f"{common if n % 4 == 0 else ''} {' '.join(draws.choices(WORDS, k=draws.randint(2, 30)))} {n}",
            sampling={
                "max_tokens": draws.randint(24, 96),
                "temperature": float(n % 2),
                "seed": n,
                "ignore_eos": True,
            },
        )
        for n in range(NUM_CASES)
    ]
    with Engine.from_pretrained(CAUSAL, dtype="float32") as engine:
        outputs = engine.generate([case.prompt for case in asked], [SamplingParams(**case.sampling) for case in asked])
    found = [
        Case(prompt=case.prompt, sampling=case.sampling, text=output.text)
        for case, output in zip(asked, outputs, strict=True)
    ]
    assert len({case.text for case in found}) == NUM_CASES
    return found


def test_streams_are_right_whatever_happens(service: Service, cases: list[Case]) -> None:
    asyncio.run(weather(service, cases))


async def weather(service: Service, cases: list[Case]) -> None:
    """A storm, and then as many streams at once as there can be, which all are whole if the storm left nothing behind."""
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=2 * NUM_CASES)
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=None, limits=limits) as http:
        streams, moments = await storm(http, service, cases)
        log_storm(streams, moments)
        check_texts(streams)
        check_ends(streams, moments)
        await check_rest(service)
        everything = await asyncio.gather(*(follow(http, case, leaves_after=None) for case in cases))
    assert Counter(stream.end for stream in everything) == {"whole": NUM_CASES}, (
        "something of the service is still held"
    )
    check_texts(everything)
    await check_rest(service)


async def storm(http: httpx.AsyncClient, service: Service, cases: Sequence[Case]) -> tuple[list[Stream], Moments]:
    """All streams of the clients, which go on until the replica is replaced and the time is over."""
    streams: list[Stream] = []
    is_over = asyncio.Event()

    async def be_client(number: int) -> None:
        draws = random.Random(number)
        while not is_over.is_set():
            leaves_after = draws.randrange(16) if draws.random() < LEAVING else None
            streams.append(await follow(http, draws.choice(cases), leaves_after=leaves_after))

    end = monotonic() + STORM_S
    async with asyncio.TaskGroup() as clients:
        for number in range(NUM_CLIENTS):
            clients.create_task(be_client(number))
        await asyncio.sleep(STORM_S / 3)
        moments = await kill_one(service)
        await asyncio.sleep(max(end - monotonic(), SETTLED_S))
        is_over.set()
    return streams, moments


async def kill_one(service: Service) -> Moments:
    """Stops a replica for a while, has it go on, and kills it at its work; waits for another."""
    victim = service.replicas("text")[0]
    os.kill(victim, signal.SIGSTOP)
    stopped = monotonic()
    try:
        await asyncio.sleep(STOPPED_S)
    finally:
        resumed = monotonic()
        os.kill(victim, signal.SIGCONT)
    await asyncio.sleep(AT_WORK_S)
    os.kill(victim, signal.SIGKILL)
    killed = monotonic()
    await until(lambda: len(set(service.replicas("text")) - {victim}) == 2, "another replica")
    return Moments(stopped=stopped, resumed=resumed, killed=killed, replaced=monotonic())


async def follow(http: httpx.AsyncClient, case: Case, *, leaves_after: int | None) -> Stream:
    """Reads a stream to its end, or leaves: after so many events, or for 0 without waiting for the first."""
    stream = Stream(case=case, begun=monotonic())
    try:
        async with asyncio.timeout(EARLY_S if leaves_after == 0 else STREAM_S):
            stream.end = await read(http, stream, leaves_after)
    except LeftError:
        stream.end = "left"
    except TimeoutError:
        stream.end = "left" if leaves_after == 0 else "hangs"
    except httpx.TransportError as error:
        stream.end = f"broken by {error!r}"
    stream.ended = monotonic()
    return stream


async def read(http: httpx.AsyncClient, stream: Stream, leaves_after: int | None) -> str:
    """How the stream ended: whole, lost with an error event, or refused with a status."""
    end = "cut off"
    body = {"model": "text", "prompt": stream.case.prompt, "stream": True, **stream.case.sampling}
    async with http.stream("POST", URL, json=body) as response:
        if response.status_code != 200:
            code = json.loads(await response.aread())["error"]["code"]
            return f"refused with {response.status_code} {code}"
        async for line in response.aiter_lines():
            if not line:
                continue
            assert end == "cut off", f"{line} came after the end"
            end = take(stream, line.removeprefix("data: "))
            if len(stream.heard) == leaves_after:
                raise LeftError
    return end


def take(stream: Stream, event: str) -> str:
    """Adds an event to the stream; "cut off" is how it would have ended without another."""
    if event == "[DONE]":
        return "whole"
    body = json.loads(event)
    if "error" in body:
        return f"lost with {body['error']['code']}"
    stream.ids.add(body["id"])
    for choice in body["choices"]:
        stream.heard.append(monotonic())
        stream.text += choice["text"]
        if choice["finish_reason"] is not None:
            stream.reasons.append(choice["finish_reason"])
    return "cut off"


def check_texts(streams: Sequence[Stream]) -> None:
    """Every text is the engine's own, or the beginning of it where the stream ended early; no event is another stream's."""
    for stream in streams:
        if stream.end == "whole":
            assert (stream.text, stream.reasons) == (stream.case.text, ["length"])
        assert stream.case.text.startswith(stream.text)
    ids = [stream.ids for stream in streams if stream.heard]
    assert all(len(of_one) == 1 for of_one in ids)
    assert len(set().union(*ids)) == len(ids)


def check_ends(streams: Sequence[Stream], moments: Moments) -> None:
    """Nothing but the killed replica's own streams ended with an error, and they did so in the way that is promised."""
    ends = Counter(stream.end for stream in streams)
    assert set(ends) <= {"whole", "left", LOST, REFUSED}
    assert ends["whole"]
    assert ends["left"]
    assert ends[LOST], "the kill cost nobody anything"
    for stream in streams:
        if stream.end == LOST:
            assert stream.heard, "an error event is for a stream that has begun; else there is a status"
            assert stream.begun < moments.killed < stream.ended
        if stream.end == REFUSED:
            assert stream.begun < moments.replaced
            assert stream.ended > moments.killed
    others = [stream for stream in streams if is_of_the_other(stream, moments)]
    assert others
    assert {stream.end for stream in others} <= {"whole", "left"}


def is_of_the_other(stream: Stream, moments: Moments) -> bool:
    """Whether a stream that saw the kill brought text while the killed replica could not."""
    was_there = stream.begun < moments.killed < stream.ended
    return was_there and any(moments.stopped + DELIVERY_S < time < moments.resumed for time in stream.heard)


async def check_rest(service: Service) -> None:
    """Both replicas are up, nothing waits or runs, all blocks are free, and nothing was counted as a fault of the service."""
    gauges = ("millrace_queue_requests", "millrace_running_requests", "millrace_cache_used_ratio")
    await until(lambda: not any(map(service.gauge, gauges)), "all requests to be over and all blocks to be free")
    assert service.gauge("millrace_model_up") == 1
    assert 'status="500"' not in service.metrics
    assert len(service.replicas("text")) == 2


async def until(is_so: Callable[[], bool], what: str) -> None:
    """`wait_until`, while the clients go on."""
    await asyncio.to_thread(wait_until, is_so, what)


def log_storm(streams: Sequence[Stream], moments: Moments) -> None:
    """One line with numbers."""
    there = [stream for stream in streams if stream.begun < moments.killed < stream.ended]
    lost = [stream for stream in streams if stream.end == LOST]
    logger.info(
        "%d streams: %s; %d were open at the kill, %d of them surely the other replica's; errors came within %.1f s; "
        "the replica was replaced in %.1f s",
        len(streams),
        dict(Counter(stream.end for stream in streams)),
        len(there),
        sum(is_of_the_other(stream, moments) for stream in there),
        max((stream.ended - moments.killed for stream in lost), default=0.0),
        moments.replaced - moments.killed,
    )
