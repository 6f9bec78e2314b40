"""A cluster of which a part is gone is noticed; one that is slow, or back in time, is not lost."""

import os
import socket
from pathlib import Path

import pytest

from pipelines.cluster.watch import ClusterWatch, _accepts
from pipelines.errors import ClusterLostError


class Part:
    """Accepts connections or does not."""

    def __init__(self) -> None:
        self.is_there = True

    def __call__(self) -> bool:
        return self.is_there


def watch_of(part: Part, now: list[float]) -> ClusterWatch:
    return ClusterWatch({"raylet": (part, 2.5)}, clock=lambda: now[0])


def test_a_part_that_is_silent_for_its_patience_is_lost_for_good() -> None:
    part, now = Part(), [0.0]
    watch = watch_of(part, now)
    part.is_there = False
    now[0] = 2.0
    assert watch.look() is None
    watch.check()
    now[0] = 3.0
    assert watch.look() is not None
    part.is_there = True
    watch.look()
    with pytest.raises(ClusterLostError, match="its raylet has accepted no connection for 3 s"):
        watch.check()


def test_a_part_that_is_back_in_time_is_not_lost() -> None:
    part, now = Part(), [0.0]
    watch = watch_of(part, now)
    for is_there in (False, False, True, False, False, True):
        now[0] += 1.2
        part.is_there = is_there
        assert watch.look() is None


def unix_socket(folder: Path) -> tuple[socket.socket, str]:
    listener = socket.socket(socket.AF_UNIX)
    place = os.path.relpath(folder / "s")
    listener.bind(place)
    return listener, place


def test_who_listens_accepts_and_who_is_gone_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listener, place = unix_socket(tmp_path)
    with listener:
        assert not _accepts(socket.AF_UNIX, place)
        listener.listen(1)
        assert _accepts(socket.AF_UNIX, place)
    assert not _accepts(socket.AF_UNIX, place)


def test_who_is_only_slow_to_accept_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A raylet that is stopped for a while has connections waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.cluster.watch.CONNECT_S", 0.05)
    listener, place = unix_socket(tmp_path)
    with listener:
        listener.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(place)
        assert _accepts(socket.AF_UNIX, place)
        for each in waiting:
            each.close()
