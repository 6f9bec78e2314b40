"""Two ends that know the secret come together; whatever anybody else says, nothing is unpickled and no channel is made."""

import hashlib
import hmac
import pickle
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import EngineError
from models.parallel.calls import Call, CallReceiver, CallSender
from models.parallel.handshake import HELLO_BYTES, WELCOME, Seat, greet, introduce
from tests.helpers.models.pairs import PATIENCE_S, SECRET, Running, connected, pair_of
from tests.helpers.strangers import Touching

SEAT = Seat("calls", 3)
REFUSED = (EngineError, OSError)
PROOF_BYTES = 32


@pytest.fixture(autouse=True, scope="module")
def no_pickles() -> Iterator[None]:
    """Unpickling anything fails, in all tests of this module but one."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle, "loads", refuse)
        yield


def soon() -> float:
    return time.monotonic() + PATIENCE_S


def greeted(words: bytes) -> None:
    """Rank 0 with somebody who says `words` and hangs up."""
    stranger, rank_0 = connected()
    with stranger, rank_0:
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        greet(rank_0, SECRET, end=soon())


def introduced(words: bytes) -> None:
    """A follower with somebody who says `words` and hangs up."""
    follower, stranger = connected()
    with follower, stranger:
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        introduce(follower, SECRET, SEAT, end=soon())


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: hello() + tail))
def test_rank_0_makes_no_channel_whatever_a_stranger_says(words: bytes) -> None:
    with pytest.raises(REFUSED):
        greeted(words)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_a_follower_makes_no_channel_whatever_a_stranger_answers(words: bytes) -> None:
    with pytest.raises(REFUSED):
        introduced(words)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_comes_before_the_proof_is_not_opened(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(Touching(tmp_path / "touched"), protocol=protocol)
    for words in (content, len(content).to_bytes(8, "little") + content, bytes(64) + content):
        with pytest.raises(REFUSED):
            greeted(words)
        with pytest.raises(REFUSED):
            introduced(words)
    assert list(tmp_path.iterdir()) == []


def hello(rank: int = 3) -> bytes:
    """What a follower says first, as the handshake's own words describe it."""
    return b"millrace" + b"\0" + rank.to_bytes(4, "little") + b"n" * 32


def proof(secret: bytes, who: bytes, said: bytes) -> bytes:
    return hmac.new(secret, b"millrace " + who + b" proves\0" + said, hashlib.sha256).digest()


def test_rank_0_believes_the_proof_that_the_formula_gives() -> None:
    follower, rank_0 = connected()
    with follower, rank_0:
        found = Running(lambda: greet(rank_0, SECRET, end=soon())[0])
        follower.sendall(hello())
        answer = follower.recv(64, socket.MSG_WAITALL)
        said = hello() + answer[:32]
        assert answer[32:] == proof(SECRET, b"rank 0", said)
        follower.sendall(proof(SECRET, b"a follower", said))
        assert found.result() == SEAT


def test_rank_0_sends_away_who_has_another_secret() -> None:
    follower, rank_0 = connected()
    with follower, rank_0:
        found = Running(lambda: greet(rank_0, SECRET, end=soon()))
        follower.sendall(hello())
        said = hello() + follower.recv(64, socket.MSG_WAITALL)[:32]
        follower.sendall(proof(b"x" * 32, b"a follower", said))
        with pytest.raises(EngineError, match="does not know the secret"):
            found.result()


def test_rank_0_does_not_believe_its_own_proof_shown_back() -> None:
    stranger, rank_0 = connected()
    with stranger, rank_0:
        found = Running(lambda: greet(rank_0, SECRET, end=soon()))
        stranger.sendall(hello())
        stranger.sendall(stranger.recv(64, socket.MSG_WAITALL)[32:])
        with pytest.raises(EngineError, match="does not know the secret"):
            found.result()


@pytest.mark.parametrize("secret", [SECRET, b"x" * 32], ids=["a follower's", "with another secret"])
def test_a_follower_does_not_believe_the_proof_of_anybody_but_rank_0(secret: bytes) -> None:
    follower, stranger = connected()
    with follower, stranger:
        found = Running(lambda: introduce(follower, SECRET, SEAT, end=soon()))
        said = stranger.recv(HELLO_BYTES, socket.MSG_WAITALL) + b"m" * 32
        stranger.sendall(b"m" * 32 + proof(secret, b"a follower" if secret == SECRET else b"rank 0", said))
        with pytest.raises(EngineError, match="does not prove"):
            found.result()


def relayed(first: socket.socket, second: socket.socket, count: int) -> bytes:
    """Hands `count` bytes on."""
    words = first.recv(count, socket.MSG_WAITALL)
    second.sendall(words)
    return words


def test_what_was_heard_once_opens_nothing_again() -> None:
    follower, at_follower = connected()
    at_rank_0, rank_0 = connected()
    with follower, at_follower, at_rank_0, rank_0:
        first = Running(lambda: introduce(follower, SECRET, SEAT, end=soon()))
        second = Running(lambda: greet(rank_0, SECRET, end=soon())[1].send(WELCOME))
        heard_hello = relayed(at_follower, at_rank_0, HELLO_BYTES)
        heard_answer = relayed(at_rank_0, at_follower, 32 + PROOF_BYTES)
        heard_proof = relayed(at_follower, at_rank_0, PROOF_BYTES)
        welcome = relayed(at_rank_0, at_follower, 8 + PROOF_BYTES)
        first.result()
        second.result()
        with pytest.raises(EngineError):
            greeted(heard_hello + heard_proof)
        with pytest.raises(EngineError):
            introduced(heard_answer + welcome)


def test_who_hands_a_handshake_on_cannot_call(tmp_path: Path) -> None:
    """A neighbour who sits between the two, and so has an open connection to a follower that believes it."""
    follower, at_follower = connected()
    at_rank_0, rank_0 = connected()
    with follower, at_follower, at_rank_0, rank_0:
        first = Running(lambda: introduce(follower, SECRET, SEAT, end=soon()))
        second = Running(lambda: greet(rank_0, SECRET, end=soon())[1].send(WELCOME))
        relayed(at_follower, at_rank_0, HELLO_BYTES)
        relayed(at_rank_0, at_follower, 32 + PROOF_BYTES)
        relayed(at_follower, at_rank_0, PROOF_BYTES)
        relayed(at_rank_0, at_follower, 8 + PROOF_BYTES)
        second.result()
        channel = first.result()
        content = pickle.dumps(Touching(tmp_path / "touched"))
        at_follower.sendall(len(content).to_bytes(8, "little") + bytes(PROOF_BYTES) + content)
        with pytest.raises(EngineError, match="not sent by the other end"):
            CallReceiver(channel).receive()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [b"", hello()[:20], hello()], ids=["nothing", "half", "no proof"])
def test_a_silent_end_is_left_in_time(words: bytes) -> None:
    silent, rank_0 = connected()
    with silent, rank_0:
        silent.sendall(words)
        with pytest.raises(TimeoutError):
            greet(rank_0, SECRET, end=time.monotonic() + 0.1)


def test_an_end_that_says_a_byte_now_and_then_is_left_in_time() -> None:
    slow, rank_0 = connected()
    with slow, rank_0:
        found = Running(lambda: greet(rank_0, SECRET, end=time.monotonic() + 1.0))
        while found.is_alive():
            try:
                slow.sendall(b"m")
            except OSError:
                break
            found.join(0.3)
        with pytest.raises(TimeoutError):
            found.result()


def test_a_follower_leaves_a_silent_rank_0_in_time() -> None:
    follower, silent = connected()
    with follower, silent, pytest.raises(TimeoutError):
        introduce(follower, SECRET, SEAT, end=time.monotonic() + 0.1)


def test_the_guard_of_this_module_guards() -> None:
    pair = pair_of()
    CallSender([pair.rank_0]).send(Call(method="execute", arguments=()))
    with pytest.raises(AssertionError, match="something was unpickled"):
        CallReceiver(pair.follower).receive()
    pair.close()
