"""A command in a process of its own ends with the process that began it."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import pytest

from feedmill import child_command


def test_a_child_that_does_not_end_in_time_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # The child still imports its modules when it should have ended.
    monkeypatch.setattr(child_command, "_STOP_WITHIN_S", 0.001)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            child_command.run_child(["watch"], tmp_path / "printed", tmp_path / "log")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
