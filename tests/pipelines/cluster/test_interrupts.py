"""A run is interrupted once, by either signal."""

import os
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable

import pytest

from pipelines.cluster.interrupts import SAME_S, Grace, interrupts
from pipelines.cluster.last_resort import LastResort

NEVER = Grace(first_s=3600.0, second_s=3600.0, message="")
PENDING: list[signal.Signals] = []
"""Signals that arrive while this process forks."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts():
        os.kill(os.getpid(), number)


def test_a_second_signal_does_not_disturb_the_cleaning_up() -> None:
    cleaned = False
    with interrupts():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned


@pytest.mark.parametrize(("pause_s", "ends"), [(0.0, False), (1.5 * SAME_S, True)], ids=["at once", "later"])
def test_a_second_signal_brings_the_last_resort_forward_unless_it_is_the_first_again(
    pause_s: float, ends: bool
) -> None:
    ended = threading.Event()
    last_resort = LastResort(lambda _: None, end=lambda _: ended.set())
    with interrupts(last_resort, Grace(first_s=3600.0, second_s=0.0, message="ended")):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(pause_s)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended.wait(30.0 if ends else 0.5) is ends


def test_handlers_can_be_set_again_and_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts() as install:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        install()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_others_have_lost_interrupts_when_the_handlers_are_set_again(number: signal.Signals) -> None:
    """As where a library has handlers of its own, and what they raise goes nowhere."""
    lost = threading.Event()
    with interrupts(LastResort(lambda _: None, end=lambda _: None), NEVER) as take_signals:
        take_signals()
        signal.signal(number, lambda *_: lost.set())
        os.kill(os.getpid(), number)
        assert lost.wait(30.0)
        with pytest.raises(KeyboardInterrupt):
            again_and_again(take_signals)


def again_and_again(call: Callable[[], None]) -> None:
    """For as long as a thread on a busy machine may need to learn of a signal."""
    for _ in range(3000):
        call()
        time.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_ignored_where_a_process_forks_is_raised_when_the_handlers_are_set_again() -> None:
    def deliver() -> None:
        if PENDING:
            os.kill(os.getpid(), PENDING.pop())

    os.register_at_fork(after_in_parent=deliver)
    with interrupts(LastResort(lambda _: None, end=lambda _: None), NEVER) as take_signals:
        PENDING.append(signal.SIGINT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an exception that is ignored, and of forking among threads
            subprocess.run(["true"], preexec_fn=lambda: None, check=True)
        assert not PENDING
        with pytest.raises(KeyboardInterrupt):
            take_signals()


def test_other_threads_leave_signals_alone() -> None:
    seen: list[object] = []

    def enter() -> None:
        with interrupts() as install:
            install()
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
