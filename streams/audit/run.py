"""Run an audit: read a family's topics, compare them with its ledger, and report the faults.

    1. Read the stored coverage, and take the offsets to read (`view`).
    2. Read ledger, clean, rejected and raw, each once; keep flat arrays of offsets, counts and ids. Rows of clean that
       are retracted are counted; they are no fault.
    3. For each raw partition: compare records with entries one by one, then the rows that the entries claim with the
       rows found, and the coverage counts with a recount.
    4. Look for example ids that are in clean twice, and rows in the wrong partition.
    5. Compare DuckDB with the ledger up to DuckDB's own position.

Memory is some 60 bytes per raw record and 16 per clean row.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from broker.clients import Connection
from broker.retractions import retraction_bound, retraction_entries
from broker.topics import Extent, topic_id, topic_name
from schema.errors import AuditError
from schema.family import Family
from schema.record import CLEAN, LEDGER, RAW, REJECTED, RETRACTIONS, STAGES
from schema.retractions import COLUMNS, NO_IDS, Ids, sorted_ids
from streams.audit import fold
from streams.audit.clean import CleanLog
from streams.audit.ledger import ROW_COUNTS, LedgerLog
from streams.audit.partition import KINDS, Logs, PartitionAudit, audit_partition
from streams.audit.raw import RawLog
from streams.audit.rejected import RejectedLog
from streams.audit.report import AuditFault, AuditReport
from streams.audit.scan import scan
from streams.audit.view import View, take_view

# Called with the number of offsets read so far, the number to read in all, and the stage being read.
OnProgress = Callable[[int, int, str], None]


def audit(connection: Connection, family: Family, on_progress: OnProgress | None = None) -> AuditReport:
    """Compare the topics of `family` with its ledger, and return the report.

    Raises:
        AuditError: a topic cannot be read to its end.
        BrokerError: a topic does not exist.
    """
    began = time.monotonic()
    topics = {stage: topic_name(connection.settings, family.name, stage) for stage in STAGES}
    stored = fold.ask(connection, family)  # 1
    view = take_view(connection, family.name)
    logs = _read(connection, family, view, {} if isinstance(stored, str) else stored.positions, on_progress)  # 2
    entries = logs.ledger.by_partition()
    partitions = {
        number: audit_partition(number, extent, view.positions.get(number, 0), entries.get(number), logs)
        for number, extent in sorted(view.stages[RAW].items())
    }  # 3
    twice = sorted(logs.clean.ids.twice())  # 4
    coverage = fold.check(family, stored, view.stages[LEDGER], logs.ledger.folded)  # 5

    faults = list(_of_raw(partitions, topics[RAW], view.stages[LEDGER]))
    faults += [
        AuditFault(topics[CLEAN], at, offset, f"example_id {id_:016x} comes again") for at, offset, id_ in twice[:1]
    ]
    for wrong in logs.clean.misplaced[:1]:
        what = f"{wrong.rows:,} rows belong in another partition"
        faults.append(AuditFault(topics[CLEAN], wrong.partition, wrong.offset, what))
    if not coverage.ok:
        faults.append(AuditFault(topics[LEDGER], 0, None, coverage.note))
    sums = logs.ledger.folded + logs.ledger.beyond
    kinds: Counter[str] = sum((each.faults for each in partitions.values()), Counter())
    return AuditReport(
        family=family.name,
        raw_records=sum(each.raw_records for each in partitions.values()),
        ledger_entries=sums.counts["entries"],
        waiting=sum(each.waiting for each in partitions.values()),
        **{kind: kinds[kind] for kind in KINDS},
        duplicate_ids=len({id_ for _, _, id_ in twice}),
        misplaced=sum(wrong.rows for wrong in logs.clean.misplaced),
        foreign_records=logs.ledger.foreign + logs.clean.foreign + logs.rejected.foreign,
        rows={name: sums.counts[name] for name in ROW_COUNTS},
        rows_retracted=logs.clean.rows_retracted,
        rejected_by_reason=dict(sums.reasons.most_common()),
        coverage=coverage,
        first_fault=faults[0] if faults else None,
        elapsed_s=round(time.monotonic() - began, 2),
    )


def _read(
    connection: Connection, family: Family, view: View, folded: Mapping[int, int], on_progress: OnProgress | None
) -> Logs:
    settings = connection.settings
    raw_topic = topic_name(settings, family.name, RAW)
    ledger = LedgerLog(family, topic_id(connection, raw_topic), folded)
    clean = CleanLog(
        family,
        raw_topic,
        len(view.stages[RAW]),
        ledger.first_entry_ms,
        settings.dedup_window_rows,
        _retracted(connection, family),
    )
    logs = Logs(ledger, clean, RejectedLog(family, raw_topic), RawLog(family, raw_topic))
    done = 0
    # The ledger comes first, because it has each partition's first use and the skipped offsets.
    for stage, log in ((LEDGER, ledger), (CLEAN, clean), (REJECTED, logs.rejected), (RAW, logs.raw)):

        def passed(offsets: int, stage: str = stage) -> None:
            nonlocal done
            done += offsets
            if on_progress is not None:
                on_progress(done, view.offsets, stage)

        is_passed_over = ledger.is_passed_over if stage == RAW else None
        name = topic_name(settings, family.name, stage)
        for records in scan(connection, name, view.stages[stage], passed, is_passed_over):
            log.add(records)
    return logs


def _retracted(connection: Connection, family: Family) -> Ids:
    """Return the ids that are retracted now; records that cannot be decoded are passed over with a warning."""
    topic = topic_name(connection.settings, family.name, RETRACTIONS)
    bound = retraction_bound(connection, topic)
    if bound is None:
        return NO_IDS
    columns = {"example_id": COLUMNS["example_id"]}
    return sorted_ids(retraction_entries(connection, topic, bound, AuditError, columns=columns, is_strict=False))


def _of_raw(
    partitions: Mapping[int, PartitionAudit], raw_topic: str, ledger: Mapping[int, Extent]
) -> Iterator[AuditFault]:
    """Yield the first fault of each kind in each partition: the most serious kind first, then by partition."""
    for kind in KINDS:
        for number, result in partitions.items():
            if kind in result.first:
                offset, what = result.first[kind]
                removed = ledger[number].begin if number in ledger else 0
                cause = f"; entries below offset {removed} of its ledger were removed" if removed else ""
                yield AuditFault(raw_topic, number, offset, f"{what}{cause}")
