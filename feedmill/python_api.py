"""Functions of the public API that name a family: `produce`, `coverage_report`, `forget`. Import them from feedmill."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.clients import Connection, connect
from broker.topics import ensure_topics
from consumers.retraction import forget as retraction
from producers import run as producer_run
from producers.seeds import fresh_seed
from schema.errors import UsageError
from schema.parts import load_part
from schema.registry import family_named
from schema.settings import load_settings
from streams.coverage.client import open_coverage

if TYPE_CHECKING:
    from producers.sink import OnProgress, ProduceReport


def produce(
    family: str,
    *,
    count: int | None,
    seed: int | None = None,
    connection: Connection | None = None,
    out: str | Path | None = None,
    on_progress: OnProgress | None = None,
    **parameters: Any,
) -> ProduceReport:
    """Generate examples of a family into its raw topic, or into a file; all are acknowledged when this returns.

    The same seed and parameters give the same examples, whatever the number of workers.

    Args:
        family: a registered family.
        count: the exact number of examples; None for a family that reads its input, such as code: all of it.
        seed: 0 <= seed < 2^63; None draws one, which the report names.
        connection: the broker to send to; None connects under the settings of this process.
        out: a file to write as JSON lines, in place of the topic.
        on_progress: called with the number of examples done.
        parameters: more parameters of the family's run: `workers` (processes, 1 unless given), `run` (its name in the
            ledger), and the family's own, such as `fuel` of `ReductionRun` or `backend` of scenarios.

    Returns:
        The totals: `rows`, `records`, `bytes`, `elapsed_s`, `seed`, `run` and `counts`.

    Raises:
        UnknownFamilyError: no such family.
        UsageError: a parameter is unknown or out of range, or the file cannot be written.
        BrokerError: the broker cannot be reached, or it did not accept a record.
        ProducerError: a worker process failed.

    Example::

        produced = produce("reduction", count=2_000, seed=7, connection=connection)
        produced.rows  # 2000
        produced.run  # 'reduction-7'
    """
    declared = family_named(family)
    kind = load_part(declared, "producer")
    known = [each.name for each in fields(kind) if each.name not in ("count", "seed")]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise UsageError(f"a run of {family} has no parameter {unknown[0]!r}: it has {', '.join(known)}")
    run: producer_run.ProducerRun[Any] = kind(count, fresh_seed() if seed is None else seed, **parameters)
    if out is not None:
        return producer_run.write_jsonl(run, Path(out), on_progress)
    connection = connect(load_settings()) if connection is None else connection
    ensure_topics(connection, [family])
    return producer_run.produce(connection, run, on_progress)


def coverage_report(connection: Connection, family: str) -> dict[str, Any]:
    """Return the coverage of a family: its rows by outcome, by bin and by cell, its gaps and its quotas.

    A running coverage service answers; without one, this process folds the ledger itself. In both cases the report is
    as new as the last record that was folded: call `drain` first if all raw records must be in it.

    Returns:
        The object that `feedmill coverage report FAMILY --json` prints, with `rows_in`, `rows_clean`, `rows_rejected`,
        `rejected_by_reason`, `axes`, `cells_total`, `cells_covered`, `gaps_to_fill`, `quotas` and more.

    Raises:
        UnknownFamilyError: no such family.
        CoverageError: the service or the store cannot answer.
        BrokerError: the broker cannot be reached.

    Example::

        coverage = coverage_report(connection, "reduction")
        coverage["rows_in"] == coverage["rows_clean"] + coverage["rows_rejected"] + coverage["rows_rerouted"]  # True
        coverage["cells_covered"] <= coverage["cells_total"]  # True
    """
    with open_coverage(connection) as coverage:
        return coverage.report(family)


def forget(
    connection: Connection, family: str, where: str, reason: str = retraction.NO_REASON, *, dry_run: bool = False
) -> retraction.ForgetReport:
    """Retract rows of clean and the rows that were augmented from them: feeds and replays leave them out from now on.

    Args:
        connection: the broker to read from and to write to.
        family: a registered family.
        where: an SQL condition over the family's columns, as for `replay`.
        reason: a text for reports.
        dry_run: count the rows and write nothing.

    Returns:
        The totals, with `rows_found`, `rows_of_origins`, `rows_retracted_before` and `rows_retracted`.

    Raises:
        UnknownFamilyError: no such family.
        UsageError: the filter is refused, or the reason is empty or too long.
        BrokerError: the broker cannot be read; DeliveryError: it did not take the entries.
        ReplayError: a record cannot be decoded, or retractions were lost.

    Example::

        forgotten = forget(connection, "reduction", "size > 100", reason="asked out by its owner", dry_run=True)
        forgotten.rows_found == forgotten.rows_retracted  # True
    """
    return retraction.forget(connection, family_named(family), where, reason, dry_run=dry_run)
