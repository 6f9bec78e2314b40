"""Services with a process that stands still, as one that never lets go of the interpreter's lock: replaced, and no hindrance to an end."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from actors.work import INGRESS
from jobs.demo import CHECKPOINTS
from tests.helpers.jobs.serving import Service, started_service
from tests.helpers.pipelines.killing import below, processes_with, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

DRAINING_S = 30.0
AFTER_DRAINING_S = 10.0
SLACK_S = 2.0
"""What a busy machine may add."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with started_service(
        tmp_path, [{"name": "text", "path": str(CHECKPOINTS / "causal"), "dtype": "float32"}]
    ) as found:
        yield found


HTTP, ENGINE, CONTROLLER = f"ray::ServeReplica:tests:{INGRESS}", "ray::ServeReplica:tests:text", "ray::ServeController"


def stop(service: Service, *titles: str) -> list[int]:
    """SIGSTOP to all processes below a service whose title starts so."""
    stopped = [process.pid for process in below(service.process.pid) if process.title.startswith(titles)]
    assert len(stopped) >= len(titles)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    return stopped


def interrupt(service: Service) -> float:
    """When that was."""
    service.process.send_signal(signal.SIGINT)
    return time.monotonic()


def check_gone(service: Service, descendants: list[int]) -> None:
    assert service.process.returncode == 130, service.log.read_text()
    wait_until(lambda: not processes_with(service.env["RAY_TMPDIR"]), "its cluster to be gone")
    wait_until(lambda: not _there(descendants), "all of its processes to be gone")


def _there(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize(
    "stuck", [[HTTP], [ENGINE], [HTTP, ENGINE, CONTROLLER]], ids=["http", "engine", "http, engine and controller"]
)
def test_a_service_ends_whatever_is_stuck_in_it(service: Service, stuck: list[str]) -> None:
    descendants = [process.pid for process in below(service.process.pid)]
    stop(service, *stuck)
    began = interrupt(service)
    service.process.wait(DRAINING_S + AFTER_DRAINING_S + SLACK_S)
    print(f"{stuck}: ended after {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure
    check_gone(service, descendants)


def test_a_second_ctrl_c_ends_it_at_once(service: Service) -> None:
    descendants = [process.pid for process in below(service.process.pid)]
    stop(service, HTTP)
    interrupt(service)
    time.sleep(2.0)
    assert service.process.poll() is None, "there is nothing left to hurry"
    interrupt(service)
    service.process.wait(3.0 + SLACK_S)
    check_gone(service, descendants)


def test_an_http_replica_that_is_stuck_is_replaced(service: Service) -> None:
    stopped = stop(service, HTTP)

    def answers() -> bool:
        try:
            return httpx.get(f"{service.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    assert not answers()
    began = time.monotonic()
    wait_until(answers, "another replica")
    print(f"replaced after {time.monotonic() - began:.1f} s")  # noqa: T201 - a figure
    wait_until(lambda: not _there(stopped), "the stuck one to be gone")
