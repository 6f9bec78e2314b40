"""An address is known to be wrong in seconds."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from pipelines.cluster.address import check_address
from pipelines.cluster.connect import connected
from pipelines.errors import ClusterError
from pipelines.job import EngineSpec


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
    with pytest.raises(ClusterError, match=rf"nobody listens at the Ray cluster '127\.0\.0\.1:{port}'.*ray start"):
        check_address(f"127.0.0.1:{port}")


def test_a_name_that_is_none() -> None:
    with pytest.raises(ClusterError, match=r"nobody listens at the Ray cluster 'no-such-host\.invalid:6379'"):
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
    with pytest.raises(ClusterError, match="is no Ray cluster"):
        check_address(f"127.0.0.1:{port_of(listener)}")
    server.join()


def test_somebody_who_says_nothing(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.address.CONNECT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(ClusterError, match="is no Ray cluster"):
        check_address(f"127.0.0.1:{port_of(listener)}")
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:123456789"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ClusterError, match=r"HOST:PORT|nobody listens"):
        check_address(address)


def test_an_address_with_a_scheme_is_refused() -> None:
    with (
        pytest.raises(ClusterError, match="must be local, auto or HOST:PORT"),
        connected(EngineSpec(), "ray://head:10001"),
    ):
        pass


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_that_is_there_answers() -> None:
    check_address(ray.get_runtime_context().gcs_address)
