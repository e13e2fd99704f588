from __future__ import annotations

import os
import signal
import time

import pytest

from consumers.training.stopping import Stopped, StopRequest, stop_on_signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_sets_the_request_without_an_exception(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert stop.exit_status == status
    assert signal.getsignal(number) is before


def test_a_signal_interrupts_a_wait() -> None:
    began = time.monotonic()
    with stop_on_signals() as stop:
        signal.signal(signal.SIGALRM, stop.heed)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stopped), stop.waiting():
            time.sleep(30)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert time.monotonic() - began < 10


def test_a_wait_after_a_signal_ends_at_once() -> None:
    stop = StopRequest()
    stop.heed(signal.SIGTERM, None)
    with pytest.raises(Stopped), stop.waiting():
        raise AssertionError


def test_the_first_signal_counts() -> None:
    stop = StopRequest()
    for number in (signal.SIGTERM, signal.SIGINT):
        stop.heed(number, None)
    assert stop.exit_status == 143
