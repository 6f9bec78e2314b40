"""A run is interrupted once, by either signal."""

import os
import signal
import threading

import pytest

from pipelines.interrupts import interrupts


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


def test_handlers_can_be_set_again_and_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts() as install:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        install()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


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
