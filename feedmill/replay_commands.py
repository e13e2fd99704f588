"""The command `feedmill replay`: a stretch of a topic into a file."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from feedmill.progress import progress
from schema.registry import family_named
from schema.settings import load_settings


def replay_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    out: Annotated[Path, typer.Option(help="The file to write: .jsonl, .parquet or .arrow.")],
    stage: Annotated[str, typer.Option(help="clean, rejected or ledger.")] = "clean",
    start: Annotated[
        str | None, typer.Option("--from", metavar="OFFSET|TIME", help="First offset of every partition, or ISO time.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="OFFSET|TIME", help="Offset or ISO time before which to stop.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="A condition over the columns, e.g. \"split = 'test'\".")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write a stretch of a topic to a file, the same bytes every time, with a manifest beside it."""
    from broker.clients import connect
    from consumers.bounds import parse_bound
    from consumers.formats import ending
    from consumers.replay import Progress, replay

    # What is wrong with the command line is told before a broker is looked for.
    family_named(family)
    ending(out)
    first, last = parse_bound(start), parse_bound(end)
    connection = connect(load_settings())
    began = time.monotonic()
    with progress(f"replaying {family}.{stage}", 100, quiet=as_json) as advance:

        def show(done: Progress) -> None:
            advance(100 * done.offsets_done / max(done.offsets_total, 1), f"% of the offsets, {done.rows:,} rows")

        report = replay(connection, family, out, stage=stage, start=first, end=last, where=where, on_progress=show)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    elapsed_s = time.monotonic() - began
    print(f"{report.rows:,} rows -> {report.path} in {elapsed_s:.1f} s, sha256 {report.sha256}", file=sys.stderr)
    if report.dead_letters:
        print(f"{report.dead_letters:,} of them are undecodable records, their bytes in base64", file=sys.stderr)
    if report.dead_letters_left_out:
        print(
            f"{report.dead_letters_left_out:,} undecodable records were left out: replay to .jsonl without --where "
            "to have their bytes",
            file=sys.stderr,
        )
