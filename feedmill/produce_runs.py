"""Parts that all `feedmill produce FAMILY` commands share: options, a run with progress, and filling of requests."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feedmill.progress import progress
from schema.parts import load_part
from schema.record import RAW
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from producers.run import ProducerRun
    from producers.sink import OnProgress, OnUnit, ProduceReport
    from schema.family import Family

Count = Annotated[int | None, typer.Option(min=1, help="Exact number of examples to generate.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Random and printed if not given.")]
Workers = Annotated[int | None, typer.Option(min=1, max=256, help="Processes; one per core if not given.")]
RunName = Annotated[str, typer.Option(help="Name of this run in the ledger; made from the seed if not given.")]
Out = Annotated[Path | None, typer.Option(help="Write this JSONL file instead of a topic.")]
Follow = Annotated[bool, typer.Option("--follow", help="Fill the gaps that coverage requests, then end.")]


def chosen_workers(workers: int | None) -> int:
    """Return the number of processes: the given one, else one per core."""
    return workers or os.cpu_count() or 1


def connected(family: Family) -> Connection:
    """Return a connection under the settings of this process; the family's topics exist.

    Raises:
        BrokerError: the broker cannot be reached.
    """
    from broker.clients import connect
    from broker.topics import ensure_topics

    connection = connect(load_settings())
    ensure_topics(connection, [family.name])
    return connection


def produce_rows(run: ProducerRun[Any], target: Connection | Path, *, quiet: bool = False) -> tuple[str, ProduceReport]:
    """Send a run's rows to its raw topic, or write them to a file, with progress on stderr unless `quiet`.

    Returns:
        (the file or topic, the totals).

    Raises:
        FeedmillError: as `producers.run.produce` and `write_jsonl`.
    """
    with progress("generating", run.count, quiet=quiet) as advance:
        return deliver(run, target, advance)


def deliver(
    run: ProducerRun[Any],
    target: Connection | Path,
    on_progress: OnProgress | None = None,
    on_unit: OnUnit | None = None,
) -> tuple[str, ProduceReport]:
    """Send a run's rows to its raw topic, or write them to a file.

    Args:
        on_progress: called with the number of rows that are done.
        on_unit: called with each work unit that is done.

    Returns:
        (the file or topic, the totals).

    Raises:
        FeedmillError: as `producers.run.produce` and `write_jsonl`.
    """
    from broker.topics import topic_name
    from producers.run import produce, write_jsonl

    if isinstance(target, Path):
        return str(target), write_jsonl(run, target, on_progress, on_unit)
    report = produce(target, run, on_progress, on_unit)
    return topic_name(target.settings, run.family.name, RAW), report


def print_totals(noun: str, where: str, report: ProduceReport) -> None:
    """Print on stderr how many rows (`noun`) a run made, and where they are."""
    print(f"{report.rows:,} {noun} of run {report.run} -> {where} in {report.elapsed_s:.1f} s", file=sys.stderr)


def fill_requests(family: Family, seed: int, run: str, *, as_json: bool = False) -> None:
    """Fill the family's coverage requests with the rows of its declared filling, until no request is open.

    Args:
        run: the run's name; if empty, it is made from the family and the seed.

    Raises:
        ConfigError: the family declares no filling.
        ProducerError: as `producers.follow.follow`.
    """
    from feedmill.following import Following, follow_requests
    from producers.follow import maker

    fill = load_part(family, "filling")
    connection = connected(family)
    plan = Following(run or f"{family.name}-fill-{seed:x}", seed, connection.settings.rows_per_record)
    follow_requests(connection, family, maker(connection, family, fill, plan.run, seed), plan, as_json=as_json)
