"""How many connections this process opens: counted where Python connects sockets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Opened:
    """Connections opened within a `counted()` block, by all threads of the process."""

    def __init__(self) -> None:
        self.count = 0


_counting: list[Opened] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        for opened in _counting:
            opened.count += 1


# An audit hook cannot be taken back, so there is one for all tests.
sys.addaudithook(_hook)


@contextmanager
def counted() -> Iterator[Opened]:
    """Count the connections that the process opens while the block runs."""
    opened = Opened()
    _counting.append(opened)
    try:
        yield opened
    finally:
        _counting.remove(opened)
