"""The place that is attacked: a service of several models, a server beside it that does nothing, and a job on the service's replicas."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from jobs.demo import CHECKPOINTS
from tests.faults.hostile.checkpoints import save_hostile, save_long
from tests.faults.hostile.client import HEADERS
from tests.faults.hostile.job import JobBeside
from tests.faults.hostile.processes import MemoryCount
from tests.helpers.free_port import free_port
from tests.helpers.jobs.serving import Service, running_service
from tests.helpers.pipelines.killing import wait_until

ENGINE = {"max_num_seqs": 16, "cache_bytes": 64 << 20}
TEXT, LONG, HEAD, ANSWERS, HOSTILE = "text", "long", "head", "answers", "hostile"
ALIVE_S = 5.0
KEPT_BYTES = 100_000_000
"""What a service may keep of what attacks had it take, before it is started again."""


class Site:
    """The service is started again where an attack has ended it, left it deaf, or had it keep much memory, so that each attack is seen on
    its own: memory that was taken before would be taken again unseen."""

    def __init__(self, folder: Path, noise_url: str) -> None:
        self._folder, self.noise_url = folder, noise_url
        self._open = ExitStack()
        self._num_started = 0
        self._running: _Running | None = None
        self._pauses = [0.0]

    def service(self) -> Service:
        """One that answers, with a job on it."""
        running = self._running
        if running is not None and not _is_alive(running.service):
            self.close()
        elif running is not None and _own_bytes(running.service) > running.rest_bytes + KEPT_BYTES:
            self._pauses.append(running.job.finish())
            self.close()
        if self._running is None:
            self._running = self._start()
        self._running.job.keep_running()
        return self._running.service

    def finish(self) -> float:
        """Waits for the job, which has to end as it should; the longest time, of all jobs, in which nothing was committed."""
        assert self._running is not None
        return max(*self._pauses, self._running.job.finish())

    def close(self) -> None:
        """Ends the service."""
        self._open.close()
        self._running = None

    def _start(self) -> "_Running":
        self._num_started += 1
        folder = self._folder / str(self._num_started)
        folder.mkdir()
        service = self._open.enter_context(running_service(folder, models(self._folder)))
        _warm_up(service)
        job = self._open.enter_context(JobBeside(service, folder))
        return _Running(service, job, _own_bytes(service))


@dataclass(frozen=True, slots=True)
class _Running:
    """A service, the job on it, and the memory that it took before anybody attacked it."""

    service: Service
    job: JobBeside
    rest_bytes: int


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """A site whose service starts when it is asked for."""
    save_long(folder / LONG, num_positions=16_384)
    save_hostile(folder / HOSTILE)
    with _idle_server(folder) as url:
        site = Site(folder, url)
        try:
            yield site
        finally:
            site.close()


def models(folder: Path) -> list[dict[str, Any]]:
    """The models of the service: those of the demo, and a stranger's."""
    paths = {
        TEXT: CHECKPOINTS / "causal",
        LONG: folder / LONG,
        HEAD: CHECKPOINTS / "sequence-classification",
        ANSWERS: CHECKPOINTS / "question-answering",
        HOSTILE: folder / HOSTILE,
    }
    return [{"name": name, "path": str(path), "dtype": "float32", "engine": ENGINE} for name, path in paths.items()]


def _own_bytes(service: Service) -> int:
    return sum(MemoryCount().of(service.process.pid).values())


def _is_alive(service: Service) -> bool:
    try:
        return service.process.poll() is None and httpx.get(f"{service.url}/health", timeout=ALIVE_S).is_success
    except httpx.TransportError:
        return False


def _warm_up(service: Service) -> None:
    """What each model, and each kind of request, takes once and for good is taken before anything is measured."""
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *(("/v1/chat/completions", name, chat) for name in (TEXT, LONG, HOSTILE)),
        ("/v1/completions", TEXT, {"prompt": "hello", "max_tokens": 4}),
        ("/v1/embeddings", TEXT, {"input": ["hello"] * 64}),
        ("/v1/classify", LONG, {"input": "hello", "labels": ["a", "b"]}),
        ("/v1/classify", HEAD, {"input": ["hello"] * 64}),
        ("/v1/extract", ANSWERS, {"input": ["hello"] * 64, "question": "what?"}),
    ]
    for path, model, body in asked:
        answer = httpx.post(service.url + path, json={"model": model, **body}, headers=HEADERS, timeout=120)
        assert answer.status_code == 200, answer.text


@contextmanager
def _idle_server(folder: Path) -> Iterator[str]:
    """The standard library's server, which answers 404 and has nothing else to do: how long it takes is the machine's doing."""
    port = free_port()
    empty = folder / "empty"
    empty.mkdir()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"]
    with subprocess.Popen(command, cwd=empty, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}/none"
        try:
            wait_until(lambda: _answers(url), "the server that does nothing")
            yield url
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=ALIVE_S).status_code == 404
    except httpx.TransportError:
        return False
