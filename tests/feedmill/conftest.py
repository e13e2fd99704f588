"""Fixtures of the command-line tests: calling a command under a test's own settings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.clients import Connection
from feedmill.cli import run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def called(connection: Connection, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line under the test's settings: (exit status, stdout, stderr)."""
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    # Wide enough that no phrase is broken over two lines.
    monkeypatch.setenv("COLUMNS", "200")
    return caller(capfd)


def caller(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command line: (exit status, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(list(arguments))
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return call
