"""The command `feedmill skip`: pass over raw records that cannot be read, with an entry for each in the ledger."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from schema.registry import family_named
from schema.settings import load_settings


def skip_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    partition: Annotated[int, typer.Option(min=0, help="Partition of raw.")],
    to: Annotated[
        int | None,
        typer.Option(min=0, help="Offset to go on at; if not given, the end of the batch that cannot be read."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pass over the raw record that refining is stopped at because it cannot be read."""
    from broker.clients import connect
    from streams.skip import skip

    report = skip(connect(load_settings()), family_named(family), partition, to)
    if as_json:
        print(json.dumps({**asdict(report), "skipped": report.skipped}))
    elif report.skipped:
        reason = f" ({report.error})" if report.error else ""
        offsets = f"{report.begin} to {report.end - 1}"
        print(f"{report.skipped} offset(s) of partition {partition} passed over: {offsets}{reason}")
    else:
        print(f"refining of partition {partition} goes on at {report.end}")
