"""Ctrl-C ends a service in time, whatever stands still or goes on without end in it (make faults)."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from jobs.demo import CHECKPOINTS
from tests.faults.hostile import bodies, checkpoints, client, connections
from tests.faults.hostile.job import JobBeside
from tests.faults.hostile.site import ENGINE, HOSTILE, TEXT
from tests.helpers.jobs.serving import KEY, Service, running_service
from tests.helpers.pipelines.killing import below, wait_until

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

DRAIN_S, HARD_END_S = 30.0, 10.0
"""For how long what runs may come to its end, and within how long after that the service has ended whatever runs."""

BEGUN_S = 2.0
"""What is sent has arrived by then."""

State = Callable[[Service, Path], AbstractContextManager[None]]


@contextmanager
def at_rest(service: Service, folder: Path) -> Iterator[None]:
    """Nobody asks for anything."""
    yield


@contextmanager
def rendering_a_bomb(service: Service, folder: Path) -> Iterator[None]:
    """A template computes 10 to the 20 millionth."""
    body = bodies.of_json(
        model=HOSTILE,
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=1,
        chat_template_kwargs={checkpoints.BOMB: "round"},
    )
    with asking(lambda: client.post(service, "/v1/chat/completions", body())):
        yield


@contextmanager
def with_a_stopped_replica(service: Service, folder: Path) -> Iterator[None]:
    """An engine's process is stopped, with a request in it."""
    os.kill(service.replicas(HOSTILE)[0], signal.SIGSTOP)
    body = bodies.of_json(model=HOSTILE, prompt="a", max_tokens=4)
    with asking(lambda: client.post(service, "/v1/completions", body())):
        yield


@contextmanager
def with_stopped_http(service: Service, folder: Path) -> Iterator[None]:
    """The process that speaks HTTP is stopped, with a request in it."""
    os.kill(service.replicas("_http")[0], signal.SIGSTOP)
    body = bodies.of_json(model=TEXT, prompt="a", max_tokens=4)
    with asking(lambda: client.post(service, "/v1/completions", body())):
        yield


@contextmanager
def with_bodies_that_do_not_end(service: Service, folder: Path) -> Iterator[None]:
    """Connections that are held open, in all the ways there are."""
    head = connections.half_body("/v1/completions", 1000, key=KEY)
    with (
        connections.held(service.url, head, b"{" * 900, count=20) as half_bodies,
        connections.held(service.url, b"GET / HTTP/1.1\r\nX-Header: ", b"", count=20) as half_headers,
        connections.held(service.url, b"", b"", count=20),
    ):
        connections.send([*half_bodies, *half_headers])
        yield


@contextmanager
def with_streams_that_nobody_reads(service: Service, folder: Path) -> Iterator[None]:
    """Clients that ask for long streams and do not read them."""
    body = bodies.of_json(model=TEXT, prompt="a", max_tokens=700, stream=True, ignore_eos=True)()
    head = connections.half_body("/v1/completions", len(body), key=KEY)
    with connections.held(service.url, head, body, count=12) as lines:
        connections.send(lines)
        yield


@contextmanager
def with_a_job(service: Service, folder: Path) -> Iterator[None]:
    """A job computes on the service's replicas."""
    with JobBeside(service, folder) as job:
        job.keep_running()
        yield


STATES: list[State] = [
    at_rest,
    rendering_a_bomb,
    with_a_stopped_replica,
    with_stopped_http,
    with_bodies_that_do_not_end,
    with_streams_that_nobody_reads,
    with_a_job,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_ctrl_c_ends_a_service(tmp_path: Path, state: State) -> None:
    models = {TEXT: CHECKPOINTS / "causal", HOSTILE: checkpoints.save_hostile(tmp_path / HOSTILE)}
    specs = [{"name": name, "path": str(path), "dtype": "float32", "engine": ENGINE} for name, path in models.items()]
    with running_service(tmp_path, specs) as service, state(service, tmp_path):
        sleep(BEGUN_S)
        parts = [process.pid for process in below(service.process.pid)]
        begun = monotonic()
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(DRAIN_S + HARD_END_S) == 130, service.log.read_text()
        logger.info("| %s | %.1f |", state.__name__.replace("_", " "), monotonic() - begun)
        wait_until(lambda: not any(map(_is_there, parts)), "every process of the service to be gone")


@contextmanager
def asking(ask: Callable[[], str]) -> Iterator[None]:
    """A request is on its way meanwhile."""
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield
    thread.join(client.TIMEOUT_S)


def _is_there(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has waited for has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
