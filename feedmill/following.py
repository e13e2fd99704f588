"""Runs `feedmill produce FAMILY --follow`: fills the open requests of a family, and shows how many rows are missing."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feedmill.progress import OnAdvance, progress
from schema.errors import UsageError

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.follow import FollowProgress, Make
    from schema.family import Family


@dataclass(frozen=True)
class Following:
    """How to fill requests: the run's name and seed, and the rows to send before coverage must have counted them."""

    run: str
    seed: int
    batch_rows: int


def check_follow_options(count: int | None, out: object, follows: bool) -> None:
    """Check `--count`, `--out` and `--follow` against each other.

    Raises:
        UsageError: `--follow` is given with `--count` or `--out`, or neither `--follow` nor `--count` is given.
    """
    if follows and (count is not None or out is not None):
        raise UsageError("--follow fills the gaps that coverage requests, in the topic: leave out --count and --out")
    if not follows and count is None:
        raise UsageError("the number of examples is missing: give --count, or fill coverage gaps with --follow")


def follow_requests(connection: Connection, family: Family, make: Make, plan: Following, *, as_json: bool) -> None:
    """Fill the requests of `family` until no request is open, and print the totals.

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
                shown.append(
                    (now.rows_missing, stack.enter_context(progress(title, now.rows_missing, "rows", quiet=as_json)))
                )
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
