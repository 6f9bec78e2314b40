"""An address is known to be wrong in seconds."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from grpc import StatusCode

from pipelines.cluster.address import check_address
from pipelines.cluster.connect import connected
from pipelines.cluster.control_store import OK, WANTS_TOKEN
from pipelines.errors import ClusterError
from pipelines.job import EngineSpec
from tests.helpers.pipelines.control_stores import control_store, silent_server, strange_server
from tests.helpers.pipelines.running import short_folder


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("", 0)) as listening:
        yield listening


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_nobody_there(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    with pytest.raises(ClusterError, match=rf"no process listens at the Ray cluster '127\.0\.0\.1:{port}'.*ray start"):
        check_address(f"127.0.0.1:{port}")


def test_a_name_that_is_none() -> None:
    with pytest.raises(ClusterError, match=r"no process listens at the Ray cluster 'no-such-host\.invalid:6379'"):
        check_address("no-such-host.invalid:6379")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_somebody_else_is_there(listener: socket.socket, answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    with pytest.raises(ClusterError, match="is not a Ray cluster"):
        check_address(f"127.0.0.1:{port_of(listener)}")
    server.join()


def test_somebody_who_says_nothing(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.address.CONNECT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(ClusterError, match="is not a Ray cluster"):
        check_address(f"127.0.0.1:{port_of(listener)}")
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:123456789"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ClusterError, match=r"HOST:PORT|no process listens"):
        check_address(address)


def test_an_address_with_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # tests of this module may share a cluster
    with (
        pytest.raises(ClusterError, match="must be local, auto or HOST:PORT"),
        connected([EngineSpec()], "ray://head:10001"),
    ):
        pass


@pytest.mark.parametrize("refusal", [None, StatusCode.UNAUTHENTICATED])
def test_what_answers_as_a_cluster_is_taken(refusal: StatusCode | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # which Ray does not ask, either
    with control_store(refusal) as address:
        check_address(address)


REFUSALS = [StatusCode.UNIMPLEMENTED, StatusCode.UNAVAILABLE, StatusCode.PERMISSION_DENIED, StatusCode.UNKNOWN]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_what_refuses_as_no_cluster_does_is_told_with_its_answer(refusal: StatusCode) -> None:
    """What gRPC makes of a proxy's 404, 503, 403 and of a page with status 200."""
    with (
        control_store(refusal) as address,
        pytest.raises(ClusterError, match=rf"is not a Ray cluster.* ended with {refusal.name} .*`ray start --head`"),
    ):
        check_address(address)


def test_a_server_of_other_services_is_no_cluster() -> None:
    with (
        strange_server() as address,
        pytest.raises(ClusterError, match=r"is not a Ray cluster.* ended with UNIMPLEMENTED"),
    ):
        check_address(address)


def test_what_speaks_http2_and_answers_nothing_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.address.ANSWER_S", 0.5)
    with (
        silent_server() as address,
        pytest.raises(ClusterError, match=r"is not a Ray cluster, or one that hangs.* ended with DEADLINE_EXCEEDED"),
    ):
        check_address(address)


def test_a_cluster_with_certificates_is_asked_nothing_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with strange_server() as address:
        check_address(address)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_that_is_there_answers() -> None:
    check_address(ray.get_runtime_context().gcs_address)


@pytest.mark.cluster("own")
@pytest.mark.parametrize(("mode", "answer"), [("token", WANTS_TOKEN), ("disabled", OK)])
def test_a_cluster_is_known_whether_it_asks_for_a_token_or_not(mode: str, answer: str, tmp_path: Path) -> None:
    """Real ones, in processes of their own."""
    code = (
        "import ray\nfrom pipelines.cluster.address import check_address\nfrom pipelines.cluster.connect import joined\n"
        "from pipelines.cluster.control_store import answer_at\n"
        "with joined('local', num_cpus=1):\n    address = ray.get_runtime_context().gcs_address\n"
        "    check_address(address)\n    print(answer_at(address, timeout_s=60.0))\n"
    )
    with short_folder() as folder:
        environment = {**os.environ, "RAY_TMPDIR": str(folder), "HOME": str(tmp_path), "RAY_AUTH_MODE": mode}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240, check=False
        )
    assert done.stdout.strip() == answer, done.stderr
