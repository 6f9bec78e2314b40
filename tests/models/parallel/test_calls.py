"""Calls from rank 0 reach every other rank, once each and in order."""

from collections.abc import Iterator

import pytest

from models.errors import EngineError
from models.parallel.calls import Call, CallReceiver, CallSender
from tests.helpers.models.pairs import Pair, Running, pair_of

CALLS = [Call(method="execute", arguments=(n, b"x" * n)) for n in (0, 3, 2_000_000)]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    pairs = [pair_of(), pair_of()]
    yield pairs
    for pair in pairs:
        pair.close()


@pytest.fixture
def sender(pairs: list[Pair]) -> CallSender:
    return CallSender([pair.rank_0 for pair in pairs])


@pytest.fixture
def receivers(pairs: list[Pair]) -> list[CallReceiver]:
    return [CallReceiver(pair.follower) for pair in pairs]


def taken(receiver: CallReceiver) -> list[Call]:
    got = []
    while (call := receiver.receive()) is not None:
        got.append(call)
    return got


def test_every_rank_gets_every_call_and_the_end(sender: CallSender, receivers: list[CallReceiver]) -> None:
    got = [Running(lambda receiver=receiver: taken(receiver)) for receiver in receivers]  # type: ignore[misc]
    for call in [*CALLS, None]:
        sender.send(call)
    assert [each.result() for each in got] == [CALLS, CALLS]


def test_a_rank_sees_at_once_that_rank_0_is_gone(sender: CallSender, receivers: list[CallReceiver]) -> None:
    sender.close()
    with pytest.raises(EngineError, match="rank 0 is gone"):
        receivers[0].receive()


def test_rank_0_sees_that_a_rank_is_gone(sender: CallSender, receivers: list[CallReceiver]) -> None:
    other = Running(lambda: taken(receivers[0]))
    receivers[1].close()

    def send_much() -> None:
        for _ in range(100):
            sender.send(CALLS[-1])

    with pytest.raises(EngineError, match="a shard is gone"):
        send_much()
    sender.close()
    with pytest.raises(EngineError, match="rank 0 is gone"):
        other.result()
