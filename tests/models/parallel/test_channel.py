"""Both ends of a channel get each other's messages in order, and no other byte."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.parallel.channel
from models.errors import EngineError
from models.parallel.channel import Channel, mac
from tests.helpers.models.pairs import Running, connected, pair_of

MESSAGES = [b"", b"one", b"two" * 700_000]


def test_the_mac_is_that_of_rfc_4231() -> None:
    """Its test cases 1 and 2."""
    assert mac(b"\x0b" * 20, b"Hi There").hex() == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    found = mac(b"Jefe", b"what do ya want for nothing?").hex()
    assert found == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_messages_arrive_in_order_both_ways() -> None:
    pair = pair_of()
    for here, there in ((pair.follower, pair.rank_0), (pair.rank_0, pair.follower)):
        got = Running(lambda there=there: [there.receive() for _ in MESSAGES])  # type: ignore[misc]
        for message in MESSAGES:
            here.send(message)
        assert got.result() == MESSAGES
    pair.close()


def recorded(*messages: bytes) -> list[bytes]:
    """What an end writes for each of `messages`."""
    writing, reading = connected()
    with writing, reading:
        channel = Channel(writing, sending_key=b"k", receiving_key=b"l")
        frames = []
        for message in messages:
            channel.send(message)
            frames.append(reading.recv(65536))
    return frames


def read(written: bytes, count: int) -> list[bytes]:
    """The first `count` messages of what somebody wrote for the other end."""
    writing, reading = connected()
    with writing, reading:
        writing.sendall(written)
        writing.shutdown(socket.SHUT_WR)
        channel = Channel(reading, sending_key=b"l", receiving_key=b"k")
        return [channel.receive() for _ in range(count)]


FIRST, SECOND = recorded(b"first", b"second")


def test_what_was_sent_is_read() -> None:
    assert read(FIRST + SECOND, 2) == [b"first", b"second"]


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, len(FIRST) - 1), change=st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    changed = bytearray(FIRST)
    changed[place] ^= change
    with pytest.raises(ConnectionError):
        read(bytes(changed), 1)


@pytest.mark.parametrize("written", [FIRST + FIRST, SECOND + FIRST, FIRST + SECOND[:-1], SECOND], ids=str)
def test_what_is_repeated_moved_or_cut_is_noticed(written: bytes) -> None:
    with pytest.raises(ConnectionError):
        read(written, 2)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_what_a_stranger_writes_is_noticed(written: bytes) -> None:
    with pytest.raises(ConnectionError):
        read(written, 1)


def test_a_length_beyond_all_messages_is_refused_before_anything_is_read_for_it() -> None:
    with pytest.raises(ConnectionError, match="not sent by the other end"):
        read((2**63).to_bytes(8, "little") + b"m" * 32, 1)


def test_a_message_that_no_end_would_take_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of()
    monkeypatch.setattr(models.parallel.channel, "MAX_MESSAGE_BYTES", 10)
    pair.rank_0.send(b"0123456789")
    assert pair.follower.receive() == b"0123456789"
    with pytest.raises(EngineError, match="a message of 11 bytes; between ranks at most 10 are allowed"):
        pair.rank_0.send(b"0123456789a")
    pair.close()


def test_an_end_that_hangs_up_wakes_who_waits_at_either() -> None:
    pair = pair_of()
    waiting = [Running(pair.follower.receive), Running(pair.rank_0.receive)]
    pair.rank_0.hang_up()
    for each in waiting:
        with pytest.raises(ConnectionError):
            each.result()
    pair.close()
