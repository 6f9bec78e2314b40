"""What ends a process that cannot end itself."""

import threading
import time
from collections.abc import Callable

import pytest

from pipelines.cluster.last_resort import LastResort

PATIENCE_S = 10.0


class Ended:
    """Takes the words and the status in place of the process."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.status: int | None = None
        self.happened = threading.Event()

    def end(self, status: int) -> None:
        self.status = status
        self.happened.set()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def last_resort(ended: Ended) -> LastResort:
    return LastResort(ended.words.append, end=ended.end)


def test_it_gives_everything_back_the_last_first_and_says_why(last_resort: LastResort, ended: Ended) -> None:
    given: list[str] = []

    def giving(name: str) -> Callable[[], None]:
        return lambda: given.append(name)

    with last_resort.giving_back(giving("lease")), last_resort.giving_back(giving("processes")):
        with last_resort.giving_back(giving("what is back already")):
            pass
        last_resort.set(after_s=0.0, status=1, message="the cluster is lost")
        last_resort.set(after_s=0.0, status=130, message="too late to count")
        assert ended.happened.wait(PATIENCE_S)
    assert (given, ended.words, ended.status) == (["processes", "lease"], ["the cluster is lost"], 1)


def test_a_step_that_fails_or_is_stuck_does_not_keep_it(last_resort: LastResort, ended: Ended) -> None:
    def fail() -> None:
        raise OSError("the bucket is gone")

    with last_resort.giving_back(threading.Event().wait), last_resort.giving_back(fail):  # type: ignore[arg-type]
        began = time.monotonic()
        last_resort.set(after_s=0.0, status=130, message="interrupted")
        assert ended.happened.wait(PATIENCE_S)
    assert time.monotonic() - began < 3.0
    assert ended.status == 130


def test_it_can_be_called_off(last_resort: LastResort, ended: Ended) -> None:
    last_resort.set(after_s=0.2, status=130, message="interrupted")
    last_resort.call_off()
    assert not ended.happened.wait(0.5)


def test_it_can_come_earlier_but_not_later(last_resort: LastResort, ended: Ended) -> None:
    last_resort.set(after_s=3600.0, status=130, message="draining")
    last_resort.bring_forward(after_s=7200.0, status=1, message="later")
    assert not ended.happened.wait(0.2)
    last_resort.bring_forward(after_s=0.0, status=130, message="now")
    assert ended.happened.wait(PATIENCE_S)
    assert (ended.words, ended.status) == (["now"], 130)
