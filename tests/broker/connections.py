"""Count the connections that this process opens, with an audit hook on Python's sockets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Opened:
    """The number of connections that all threads opened inside a `counted()` block."""

    def __init__(self) -> None:
        self.count = 0


_counting: list[Opened] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect":
        for opened in _counting:
            opened.count += 1


# An audit hook cannot be removed, so all tests share one.
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
