"""Rank 0 lets in the ranks it waits for, past strangers of all kinds, and a rank goes in nowhere else."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import models.parallel.entrance
from models.errors import EngineError
from models.parallel.channel import Channel
from models.parallel.entrance import Entrance, enter
from models.parallel.handshake import Seat
from tests.helpers.models.pairs import PATIENCE_S, Running
from tests.helpers.strangers import WORDS, listening

HOST = "127.0.0.1"
SEATS = [Seat("calls", 1), Seat("store", 1), Seat("calls", 2)]


@pytest.fixture
def entrance() -> Iterator[Entrance]:
    entrance = Entrance(HOST)
    yield entrance
    entrance.close()


def entering(entrance: Entrance, seat: Seat) -> Running[Channel]:
    return Running(lambda: enter(HOST, entrance.port, entrance.secret, seat, PATIENCE_S))


def nothing() -> None:
    """Nobody is missed."""


def check_all_are_in(admitted: dict[Seat, Channel], coming: dict[Seat, Running[Channel]]) -> None:
    """Each seat's channel leads to the rank that asked for it."""
    assert admitted.keys() == coming.keys()
    for seat, channel in admitted.items():
        channel.send(repr(seat).encode())
    for seat, each in coming.items():
        channel = each.result()
        assert channel.receive() == repr(seat).encode()
        channel.close()
    for channel in admitted.values():
        channel.close()


def test_every_rank_gets_its_own_seat(entrance: Entrance) -> None:
    coming = {seat: entering(entrance, seat) for seat in SEATS}
    check_all_are_in(entrance.admit(SEATS, PATIENCE_S, check=nothing), coming)


def test_it_listens_on_its_address_only_and_no_longer_than_it_must(entrance: Entrance) -> None:
    own = (HOST, entrance.port)
    assert [place for place in listening([os.getpid()]) if place[1] == entrance.port] == [own]
    coming = {SEATS[0]: entering(entrance, SEATS[0])}
    check_all_are_in(entrance.admit(SEATS[:1], PATIENCE_S, check=nothing), coming)
    assert own not in listening([os.getpid()])


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(OSError, match="Cannot assign requested address"):
        Entrance("192.0.2.1")  # of no machine: RFC 5737


def test_strangers_are_waited_past(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several times as many as are greeted at a time, all of them before the ranks, and none ever ends by itself. The time that a
    stranger has is longer than the test may take."""
    monkeypatch.setattr(models.parallel.entrance, "MAX_PENDING", 8)
    monkeypatch.setattr(models.parallel.entrance, "GREETING_S", 10 * PATIENCE_S)
    admitting = Running(lambda: entrance.admit(SEATS, PATIENCE_S, check=nothing))
    with ExitStack() as stack:
        for words in 5 * list(WORDS.values()):
            stranger = stack.enter_context(socket.create_connection((HOST, entrance.port)))
            stranger.sendall(words)
        coming = {seat: entering(entrance, seat) for seat in SEATS}
        check_all_are_in(admitting.result(), coming)
    wait_for(lambda: num_greeting() == 0)


def num_greeting() -> int:
    return sum(thread.name == "millrace-greeting" for thread in threading.enumerate())


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_no_more_strangers_are_held_than_are_allowed(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.parallel.entrance, "MAX_PENDING", 8)
    monkeypatch.setattr(models.parallel.entrance, "GREETING_S", 10 * PATIENCE_S)
    admitting = Running(lambda: entrance.admit(SEATS, PATIENCE_S, check=nothing))
    with ExitStack() as stack:
        strangers = [stack.enter_context(socket.create_connection((HOST, entrance.port))) for _ in range(40)]
        for stranger in strangers[:32]:
            stranger.settimeout(PATIENCE_S)
            assert stranger.recv(1) == b""
        wait_for(lambda: num_greeting() == 8)
        coming = {seat: entering(entrance, seat) for seat in SEATS}
        check_all_are_in(admitting.result(), coming)


def test_a_silent_stranger_is_sent_away_in_time(entrance: Entrance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.parallel.entrance, "GREETING_S", 0.1)
    admitting = Running(lambda: entrance.admit(SEATS[:1], PATIENCE_S, check=nothing))
    with socket.create_connection((HOST, entrance.port)) as stranger:
        stranger.settimeout(PATIENCE_S)
        assert stranger.recv(1) == b""
    monkeypatch.undo()
    coming = {SEATS[0]: entering(entrance, SEATS[0])}
    check_all_are_in(admitting.result(), coming)


def test_a_rank_that_was_sent_away_comes_again(entrance: Entrance) -> None:
    """Something at rank 0's address ends its first connections; the entrance takes the others."""
    with socket.create_server((HOST, 0)) as between:
        port = between.getsockname()[1]
        coming = Running(lambda: enter(HOST, port, entrance.secret, SEATS[0], PATIENCE_S))
        for _ in range(3):
            between.accept()[0].close()
        entrance._listener.close()
        entrance._listener = between
        between.settimeout(models.parallel.entrance.CHECK_S)
        check_all_are_in(entrance.admit(SEATS[:1], PATIENCE_S, check=nothing), {SEATS[0]: coming})


def test_a_rank_that_nobody_waits_for_gets_no_seat(entrance: Entrance) -> None:
    admitting = Running(lambda: entrance.admit(SEATS[:1], PATIENCE_S, check=nothing))
    stray = entering(entrance, Seat("calls", 7)).result()
    with pytest.raises(ConnectionError):
        stray.receive()
    stray.close()
    coming = {SEATS[0]: entering(entrance, SEATS[0])}
    check_all_are_in(admitting.result(), coming)


def test_a_rank_that_comes_twice_has_the_later_connection(entrance: Entrance) -> None:
    admitting = Running(lambda: entrance.admit(SEATS[:2], PATIENCE_S, check=nothing))
    given_up = entering(entrance, SEATS[0]).result()
    again = entering(entrance, SEATS[0])
    again.join(PATIENCE_S)
    coming = {SEATS[0]: again, SEATS[1]: entering(entrance, SEATS[1])}
    admitted = admitting.result()
    with pytest.raises(ConnectionError):
        given_up.receive()
    check_all_are_in(admitted, coming)
    given_up.close()


def test_the_later_connection_has_the_seat_though_it_is_greeted_first(
    entrance: Entrance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that greeted the earlier one comes to its seat last."""
    give, is_given = Entrance._give, threading.Event()

    def give_first_one_last(self: Entrance, seat: Seat, arrival: Any) -> None:
        if seat == SEATS[0] and arrival.number == 0:
            assert is_given.wait(PATIENCE_S)
        give(self, seat, arrival)
        is_given.set()

    monkeypatch.setattr(Entrance, "_give", give_first_one_last)
    admitting = Running(lambda: entrance.admit(SEATS[:2], PATIENCE_S, check=nothing))
    given_up = entering(entrance, SEATS[0]).result()
    again = entering(entrance, SEATS[0])
    with pytest.raises(ConnectionError):
        given_up.receive()
    coming = {SEATS[0]: again, SEATS[1]: entering(entrance, SEATS[1])}
    check_all_are_in(admitting.result(), coming)
    given_up.close()


def test_ranks_that_do_not_come_are_an_error(entrance: Entrance) -> None:
    with pytest.raises(EngineError, match="shard 1, shard 2 did not come within 0 s"):
        entrance.admit(SEATS, 0.05, check=nothing)


def test_a_rank_that_is_in_sees_that_the_waiting_has_ended(entrance: Entrance) -> None:
    first = entering(entrance, SEATS[0])

    def check() -> None:
        if not first.is_alive():
            raise EngineError("shard 2 has ended")

    with pytest.raises(EngineError, match="shard 2 has ended"):
        entrance.admit(SEATS, PATIENCE_S, check=check)
    channel = first.result()
    with pytest.raises(ConnectionError):
        channel.receive()
    channel.close()


def test_closing_ends_the_waiting(entrance: Entrance) -> None:
    admitting = Running(lambda: entrance.admit(SEATS, PATIENCE_S, check=nothing))
    entrance.close()
    with pytest.raises(EngineError, match="closed while it waited"):
        admitting.result()


def test_nobody_listens_where_no_rank_0_is() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(EngineError, match="rank 0 does not answer"):
        enter(HOST, port, b"s" * 32, SEATS[0], PATIENCE_S)


@pytest.mark.parametrize("words", [b"x" * 64, b"x" * 4096], ids=["of the right size", "more"])
def test_a_rank_gives_up_where_the_answer_proves_nothing(words: bytes) -> None:
    with socket.create_server((HOST, 0)) as server:
        coming = Running(lambda: enter(HOST, server.getsockname()[1], b"s" * 32, SEATS[0], PATIENCE_S))
        stranger, _ = server.accept()
        with stranger:
            stranger.sendall(words)
            with pytest.raises(EngineError, match=r"who answers at 127.0.0.1:\d+ is not rank 0: .* without the secret"):
                coming.result()


def test_a_rank_gives_up_where_nobody_answers() -> None:
    with socket.create_server((HOST, 0)) as server, pytest.raises(EngineError, match="does not answer"):
        enter(HOST, server.getsockname()[1], b"s" * 32, SEATS[0], 0.2)
