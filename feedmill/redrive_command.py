"""The command `feedmill redrive`: send rejected rows and dead letters to raw again, so that they are judged again.

Use it when the cause of a rejection is gone: a share gate has room again (`quota_excellent_share`), a threshold or a
limit was changed (`near_duplicate`, `too_many_rows`), or a fault in Feedmill was fixed (`unprocessable`). A row that
breaks a rule, and unreadable bytes, are rejected again.

`producers.redrive` does the work.
"""

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

_REASONS_SHOWN = 5
# By cause: why a dead letter was left out.
_WHY_LEFT_OUT = {
    "sent_before": "were sent by an earlier redrive",
    "no_bytes": "have no bytes to send",
    "over_raw_record_max_bytes": "have more bytes than `raw_record_max_bytes`",
}


def redrive_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. scenario")],
    reason: Annotated[str, typer.Option(help="Reason code; rows with further reasons are not sent.")],
    run: Annotated[
        str, typer.Option(help="Name of this run in the ledger; made if not given. Dead letters keep theirs.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most rows and dead letters to send; the oldest rejected rows go first.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Send rejected rows and dead letters of one reason to raw again, so that they are judged again.

    Nothing is sent twice: a row is left out if it is in clean by now, a dead letter if an earlier redrive sent it.
    Rows and letters that are rejected again can be sent again. Do not run two redrives of a family at the same time.
    """
    from broker.clients import connect
    from broker.topics import ensure_topics
    from producers.redrive.run import redrive

    declared = family_named(family)
    connection = connect(load_settings())
    ensure_topics(connection, [declared.name])
    began = time.monotonic()
    with progress(f"reading {declared.name}", 100, "percent of the offsets", quiet=as_json) as advance:

        def show(done: int, total: int) -> None:
            advance(100 * done / max(total, 1))

        report, others = redrive(connection, declared, reason, run, limit, show)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    elapsed_s = time.monotonic() - began
    where = f"{connection.settings.namespace}.{declared.name}.raw"
    sent = f"{report.rows_sent:,} rows of run {report.run}"
    if report.letters_found:
        sent += f" and {report.letters_sent:,} of {report.letters_found:,} dead letters"
    print(f"{sent} -> {where} in {elapsed_s:.1f} s", file=sys.stderr)
    if report.rows_in_clean:
        print(f"{report.rows_in_clean:,} more rows are in clean by now and were not sent", file=sys.stderr)
    for cause, letters in report.letters_left_out.items():
        print(f"{letters:,} dead letters were left out: they {_WHY_LEFT_OUT[cause]}", file=sys.stderr)
    if not report.rows_found and not report.letters_found and others:
        shown = ", ".join(f"{name} ({rows:,})" for name, rows in others.most_common(_REASONS_SHOWN))
        print(f"no row was rejected for {reason} alone; there are rows for {shown}", file=sys.stderr)
