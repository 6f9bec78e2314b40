"""A store that is reached over a channel does what torch's own stores do."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore, Store  # type: ignore[attr-defined]

from models.errors import EngineError
from models.parallel.handshake import Seat
from models.parallel.shared_store import RemoteStore, SharedStore
from tests.helpers.models.pairs import Running, pair_of

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def stores() -> Iterator[tuple[SharedStore, RemoteStore]]:
    pair = pair_of(Seat("store", 1))
    shared, remote = SharedStore([pair.rank_0]), RemoteStore(pair.follower)
    yield shared, remote
    shared.close()
    remote.close()


def used(store: Store) -> list[object]:
    """What a store answers, called as torch's C++ calls it: through the class that all stores share."""
    view = PrefixStore("p", store)
    view.set("key", EVERY_BYTE)  # type: ignore[arg-type]
    view.append("key", b"more")  # type: ignore[attr-defined]
    view.multi_set(["one", "two"], [b"1", b"\xff"])  # type: ignore[attr-defined]
    return [
        view.get("key"),
        view.add("sum", 3),
        view.add("sum", 4),
        view.check(["key", "one"]),
        view.check(["key", "none"]),
        view.multi_get(["two", "one"]),
        view.delete_key("key"),
        view.delete_key("key"),
        view.check(["key"]),
        view.has_extended_api(),  # type: ignore[attr-defined]
        view.wait(["one"], timedelta(seconds=5)),
    ]


def test_it_answers_as_torchs_own_store(stores: tuple[SharedStore, RemoteStore]) -> None:
    assert used(stores[1]) == used(HashStore())


def test_each_side_sees_what_the_other_has_set(stores: tuple[SharedStore, RemoteStore]) -> None:
    shared, remote = stores
    waiting = Running(lambda: remote.get("from 0"))
    shared.store.set("from 0", b"\0\xff")  # type: ignore[arg-type]
    assert waiting.result() == b"\0\xff"
    remote.set("from 1", b"\xff\0")
    assert shared.store.get("from 1") == b"\xff\0"
    assert remote.clone() is remote


def test_who_waits_does_not_keep_other_threads_waiting(stores: tuple[SharedStore, RemoteStore]) -> None:
    _, remote = stores
    waiting = Running(lambda: remote.get("late"))
    time.sleep(0.1)
    remote.set("late", "come")
    assert waiting.result() == b"come"


def test_a_key_that_does_not_come_is_an_error(stores: tuple[SharedStore, RemoteStore]) -> None:
    _, remote = stores
    with pytest.raises(EngineError, match=r"no rank has set all of here, never within 0\.05 s"):
        remote.wait(["here", "never"], timedelta(seconds=0.05))
    remote.set_timeout(timedelta(seconds=0.05))
    with pytest.raises(EngineError, match="no rank has set all of p/never"):
        PrefixStore("p", remote).get("never")


def test_an_error_of_the_store_is_told(stores: tuple[SharedStore, RemoteStore]) -> None:
    _, remote = stores
    remote.set("word", "no number")
    with pytest.raises(EngineError, match="the store of the ranks"):
        remote.add("word", 1)
    assert remote.get("word") == b"no number"


def test_a_store_whose_rank_0_is_gone_is_an_error(stores: tuple[SharedStore, RemoteStore]) -> None:
    shared, remote = stores
    shared.close()
    with pytest.raises(EngineError, match="rank 0 is gone"):
        remote.get("anything")
