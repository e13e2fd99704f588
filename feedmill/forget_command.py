"""The command `feedmill forget`: retract rows of clean, so that feeds and replays leave them out from now on."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from feedmill.progress import progress
from schema.registry import family_named
from schema.settings import load_settings


def forget_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    where: Annotated[
        str, typer.Option(metavar="SQL", help="A condition over the columns of clean, e.g. \"license = 'GPL-3.0'\".")
    ],
    reason: Annotated[str | None, typer.Option(help="Why, for reports, e.g. 'licence withdrawn'.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the rows, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Retract the rows of clean that a filter selects, and the rows that were augmented from them.

    Feeds and replays leave retracted rows out from now on, and coverage does not count them. A row that is retracted
    twice counts once. The records stay in Kafka.
    """
    from broker.clients import connect
    from consumers.retraction.forget import NO_REASON, forget

    declared = family_named(family)
    connection = connect(load_settings())
    began = time.monotonic()
    with progress(f"searching {declared.name}", 100, "percent of the offsets", quiet=as_json) as advance:

        def show(done: int, total: int) -> None:
            advance(100 * done / max(total, 1))

        report = forget(
            connection,
            declared,
            where,
            NO_REASON if reason is None else reason,
            dry_run=dry_run,
            on_progress=show,
        )
    if as_json:
        print(json.dumps(asdict(report)))
        return
    verb = "would be retracted in" if dry_run else "retracted ->"
    print(f"{report.rows_retracted:,} rows {verb} {report.topic}, {time.monotonic() - began:.1f} s", file=sys.stderr)
    print(
        f"the filter selects {report.rows_found:,} rows; {report.rows_of_origins:,} more were augmented from retracted "
        f"rows; {report.rows_retracted_before:,} of them were retracted before",
        file=sys.stderr,
    )
