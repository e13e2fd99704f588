"""Shows the progress of long work on stderr: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_PLAIN_LINE_INTERVAL_S = 5.0


class OnAdvance(Protocol):
    """Called with the amount done so far, and a note (a rate, a loss) to show beside it."""

    def __call__(self, done: float, note: str = "") -> None:
        """Show that `done` of the total is done."""


@contextmanager
def progress(title: str, total: float | None, unit: str = "", *, quiet: bool = False) -> Iterator[OnAdvance]:
    """Show progress on `title` towards `total` (in `unit`; None if unknown) while the context lasts, unless `quiet`."""
    console = Console(stderr=True)
    if quiet:
        yield lambda done, note="": None
    elif console.is_terminal:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as shown:
            task = shown.add_task(title, total=total, count=_count(0, total, unit))
            yield lambda done, note="": shown.update(task, completed=done, count=_count(done, total, unit, note))
    else:
        yield _plain(title, total, unit)


def _count(done: float, total: float | None, unit: str, note: str = "") -> str:
    count = (f"{done:,.0f} {unit}" if total is None else f"{done:,.0f} of {total:,.0f} {unit}").rstrip()
    return f"{count}, {note}" if note else count


def _plain(title: str, total: float | None, unit: str) -> OnAdvance:
    last = [time.monotonic()]

    def advance(done: float, note: str = "") -> None:
        now = time.monotonic()
        if (total is not None and done >= total) or now - last[0] >= _PLAIN_LINE_INTERVAL_S:
            last[0] = now
            print(f"{title}: {_count(done, total, unit, note)}", file=sys.stderr, flush=True)

    return advance
