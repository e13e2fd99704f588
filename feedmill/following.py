"""What `feedmill produce FAMILY --follow` does: fill the open requests of a family, showing how many are left."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedmill.progress import OnAdvance, progress
from schema.errors import UsageError

if TYPE_CHECKING:
    import polars as pl

    from broker.clients import Connection
    from producers.follow import Cell, FollowProgress, Make, Send
    from schema.family import Family

    # The rows of these cells, under that seed, numbered from there on.
    Fill = Callable[[Sequence[Mapping[str, str]], int, int], pl.DataFrame]


@dataclass(frozen=True)
class Following:
    """How to follow: the run's name and seed, and the rows that are sent before they are asked to count."""

    run: str
    seed: int
    batch_rows: int


def check_follow_options(count: int | None, out: object, follows: bool) -> None:
    """Refuse what makes no sense together with, or without, `--follow`.

    Raises:
        UsageError: it does.
    """
    if follows and (count is not None or out is not None):
        raise UsageError("--follow makes what is asked for, into the topic: leave out --count and --out")
    if not follows and count is None:
        raise UsageError("say how many examples with --count, or --follow what coverage asks for")


def maker(connection: Connection, family: Family, fill: Fill, plan: Following) -> Make:
    """Return what makes one filled row for each cell, in this process, ready to be sent."""
    from producers.sink import RecordSender, encode_block, raw_layout

    @contextmanager
    def make(cells: Sequence[Cell], first: int) -> Iterator[Send]:
        layout = raw_layout(connection, family)
        records = encode_block(fill(cells, plan.seed, first), family, layout, first)
        with RecordSender(connection, family, plan.run) as sender:
            sender.get_ready()

            def send() -> None:
                for record in records:
                    sender.send_record(record)
                sender.flush()

            yield send

    return make


def follow_requests(connection: Connection, family: Family, make: Make, plan: Following, *, as_json: bool) -> None:
    """Follow the requests of `family` until there are none, and say what was done.

    Raises:
        ProducerError: as `producers.follow.follow`.
    """
    from producers.follow import follow

    began = time.monotonic()
    with ExitStack() as stack:
        shown: list[tuple[int, OnAdvance]] = []

        def show(now: FollowProgress) -> None:
            if not shown and now.rows_missing:
                title = f"filling {family.name}"
                shown.append((now.rows_missing, stack.enter_context(progress(title, now.rows_missing, quiet=as_json))))
            if shown:
                total, advance = shown[0]
                advance(max(0, total - now.rows_missing), f"{now.open_cells} cells open, {now.rows_sent:,} rows sent")

        done = follow(connection, family, make, plan.batch_rows, show)
    elapsed_s = time.monotonic() - began
    if as_json:
        figures = {"family": family.name, "run": plan.run, "seed": plan.seed, "rows": done.rows_sent}
        print(
            json.dumps(
                {**figures, "rounds": done.rounds, "open_cells": done.open_cells, "elapsed_s": round(elapsed_s, 3)}
            )
        )
    else:
        line = f"no gap is open: {done.rows_sent:,} rows of run {plan.run} in {done.rounds} rounds, {elapsed_s:.1f} s"
        print(line, file=sys.stderr)
