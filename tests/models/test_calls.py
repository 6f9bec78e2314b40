"""Calls from rank 0 reach every other rank, once each and in order, and nobody else's are taken."""

import socket
import threading
from collections.abc import Iterator

import pytest

from models.calls import Call, CallReceiver, CallSender
from models.errors import EngineError

HOST, PATIENCE_S = "127.0.0.1", 10.0
CALLS = [Call(method="execute", arguments=(n, b"x" * n)) for n in (0, 3, 2_000_000)]


@pytest.fixture
def sender() -> Iterator[CallSender]:
    sender = CallSender(HOST)
    yield sender
    sender.close()


def connected(sender: CallSender, count: int) -> list[CallReceiver]:
    """Receivers that the sender has taken in."""
    found: list[CallReceiver] = []

    def connect() -> None:
        found.extend(CallReceiver(HOST, sender.port, sender.secret, PATIENCE_S) for _ in range(count))

    thread = threading.Thread(target=connect)
    thread.start()
    sender.accept(count, PATIENCE_S)
    thread.join()
    return found


def test_every_rank_gets_every_call_and_the_end(sender: CallSender) -> None:
    receivers = connected(sender, 2)
    got: list[list[Call | None]] = [[], []]

    def take(index: int) -> None:
        while (call := receivers[index].receive()) is not None:
            got[index].append(call)

    threads = [threading.Thread(target=take, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for call in [*CALLS, None]:
        sender.send(call)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got == [CALLS, CALLS]
    for receiver in receivers:
        receiver.close()


def test_whoever_does_not_know_the_secret_is_turned_away(sender: CallSender) -> None:
    with socket.create_connection((HOST, sender.port)) as stranger:
        stranger.sendall(b"0" * len(sender.secret))
        (receiver,) = connected(sender, 1)
        assert stranger.recv(1) == b""
    sender.send(None)
    assert receiver.receive() is None
    receiver.close()


def test_a_rank_that_does_not_come_is_an_error(sender: CallSender) -> None:
    with pytest.raises(EngineError, match="1 shards did not connect"):
        sender.accept(1, 0.05)


def test_a_rank_sees_at_once_that_rank_0_is_gone(sender: CallSender) -> None:
    (receiver,) = connected(sender, 1)
    sender.close()
    with pytest.raises(EngineError, match="rank 0 is gone"):
        receiver.receive()
    receiver.close()


def test_rank_0_sees_that_a_rank_is_gone(sender: CallSender) -> None:
    (receiver,) = connected(sender, 1)
    receiver.close()

    def send_much() -> None:
        for _ in range(100):
            sender.send(CALLS[-1])

    with pytest.raises(EngineError, match="a shard is gone"):
        send_much()


def test_nobody_listens_where_no_rank_0_is() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(EngineError, match="rank 0 does not answer"):
        CallReceiver(HOST, port, b"0" * 16, 1.0)
