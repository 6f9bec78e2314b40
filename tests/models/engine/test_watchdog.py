"""A step that takes too long is told of, once; others are not."""

import threading
import time
from collections.abc import Iterator

import pytest

from models.engine.watchdog import Watchdog


class Told:
    def __init__(self) -> None:
        self.causes: list[str] = []
        self.event = threading.Event()

    def __call__(self, cause: str) -> None:
        self.causes.append(cause)
        self.event.set()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watchdog(told: Told) -> Iterator[Watchdog]:
    watchdog = Watchdog(0.2, told)
    yield watchdog
    watchdog.close()


def test_a_step_that_hangs_is_told_of_once(watchdog: Watchdog, told: Told) -> None:
    with watchdog:
        assert told.event.wait(10)
        time.sleep(0.5)
    assert len(told.causes) == 1
    assert "0.2 s (engine.step_timeout_s)" in told.causes[0]


def test_many_short_steps_and_idleness_are_not(watchdog: Watchdog, told: Told) -> None:
    for _ in range(20):
        with watchdog:
            time.sleep(0.01)
    time.sleep(0.4)
    assert not told.causes


def test_a_step_that_fails_is_over(watchdog: Watchdog, told: Told) -> None:
    with pytest.raises(ValueError, match="no"), watchdog:
        raise ValueError("no")
    time.sleep(0.4)
    assert not told.causes


def test_a_closed_one_says_nothing(watchdog: Watchdog, told: Told) -> None:
    watchdog.close()
    with watchdog:
        time.sleep(0.5)
    assert not told.causes
