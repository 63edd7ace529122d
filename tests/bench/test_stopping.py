"""Ctrl-C is heeded wherever it struck."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from attnbench.bench.stopping import heeded


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_is_raised_at_once_and_the_handler_put_back() -> None:
    with pytest.raises(KeyboardInterrupt), heeded():
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_is_raised_again_where_a_finaliser_lost_it() -> None:
    class Loses:
        def __del__(self) -> None:
            press()

    with heeded() as stop:
        stop()
        held = Loses()
        del held
        with pytest.raises(KeyboardInterrupt):
            stop()


def test_a_program_that_handles_it_keeps_its_handler() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with heeded() as stop:
            press()
            stop()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1]


def test_another_thread_changes_nothing() -> None:
    found = []

    def use() -> None:
        with heeded() as stop:
            stop()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
