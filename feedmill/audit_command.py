"""The command `feedmill audit`: compare the topics of a family with its ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from feedmill.progress import progress
from schema.errors import AuditError
from schema.registry import family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from streams.audit.report import AuditReport

_MEANINGS = {
    "raw_records": "records in raw",
    "ledger_entries": "entries in the ledger",
    "waiting": "records not refined yet",
    "missing": "refined records without an entry",
    "removed": "partitions with records removed before they were refined",
    "doubled": "entries beyond the first for a record",
    "unknown": "entries without a record",
    "unbalanced": "entries whose rows do not add up or are misplaced",
    "coverage_differs": "entries whose coverage differs from their clean rows",
    "duplicate_ids": "example ids more than once in clean",
    "misplaced": "clean rows in a wrong partition",
    "foreign_records": "records in clean, rejected or ledger that no worker wrote",
    "rows_retracted": "clean rows that are retracted",
}
_COUNTED_NOT_FAULTY = frozenset({"raw_records", "ledger_entries", "waiting", "foreign_records", "rows_retracted"})


def audit_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. reduction")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compare raw, clean and rejected with the ledger, record by record; exit status 1 if anything differs."""
    from broker.clients import connect
    from streams.audit.run import audit

    declared = family_named(family)
    connection = connect(load_settings())
    with progress(f"auditing {family}", 100, "percent of the offsets", quiet=as_json) as advance:

        def show(done: int, total: int, stage: str) -> None:
            advance(100 * done / max(total, 1), stage)

        report = audit(connection, declared, show)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        console = Console()
        console.print(_table(report))
        console.print(_rows_line(report), report.coverage.note, sep="\n", soft_wrap=True)
    if report.first_fault is not None:
        raise AuditError(f"the audit of {family} found a fault: {report.first_fault}")


def _table(report: AuditReport) -> Table:
    table = Table("check", title=f"audit of {report.family}", title_justify="left", box=None, pad_edge=False)
    table.add_column("count", justify="right")
    for name, meaning in _MEANINGS.items():
        count = getattr(report, name)
        bad = count and name not in _COUNTED_NOT_FAULTY
        table.add_row(meaning, f"[bold red]{count:,}[/]" if bad else f"{count:,}")
    return table


def _rows_line(report: AuditReport) -> str:
    rows = dict(report.rows)
    rows_in, augmented = rows.pop("rows_in"), rows.pop("rows_augmented")
    outcomes = " + ".join(f"{count:,} {name.removeprefix('rows_')}" for name, count in rows.items())
    sign = "=" if rows_in == sum(rows.values()) else "≠"
    return f"{rows_in:,} rows in {sign} {outcomes}; {augmented:,} rows augmented"
