"""The command `feedmill skip`: skips unreadable raw records, with a ledger entry for each."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from schema.registry import family_named
from schema.settings import load_settings


def skip_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    partition: Annotated[int, typer.Option(min=0, help="Partition of the raw topic.")],
    to: Annotated[
        int | None,
        typer.Option(min=0, help="Offset to continue at; by default the end of the unreadable batch."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Skip the unreadable raw record at which refining is stopped."""
    from broker.clients import connect
    from streams.skip import skip

    report = skip(connect(load_settings()), family_named(family), partition, to)
    if as_json:
        print(json.dumps({**asdict(report), "skipped": report.skipped}))
    elif report.skipped:
        reason = f" ({report.error})" if report.error else ""
        offsets = f"{report.begin} to {report.end - 1}"
        print(f"skipped {report.skipped} offset(s) of partition {partition}: {offsets}{reason}")
    else:
        print(f"refining of partition {partition} continues at offset {report.end}")
