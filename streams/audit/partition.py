"""One raw partition: its records compared with its ledger entries, and with the rows that these claim."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.topics import Extent
from streams.audit.clean import CleanLog
from streams.audit.found import Spans
from streams.audit.ledger import ROW_COUNTS, Entries, LedgerLog
from streams.audit.raw import RawLog
from streams.audit.rejected import RejectedLog
from streams.audit.spans import stretches

# Kinds of faults, the gravest first: the first fault that an audit names is the first of the gravest kind.
MISSING, REMOVED, DOUBLED, UNKNOWN, UNBALANCED, COVERAGE = KINDS = (
    "missing",
    "removed",
    "doubled",
    "unknown",
    "unbalanced",
    "coverage_differs",
)


@dataclass(frozen=True)
class Logs:
    """All that was read of the four topics."""

    ledger: LedgerLog
    clean: CleanLog
    rejected: RejectedLog
    raw: RawLog


@dataclass
class PartitionAudit:
    """What one raw partition came to.

    Attributes:
        raw_records, entries, waiting: counts of records, ledger entries, and records that are not refined yet.
        faults: how many of each kind.
        first: {kind: (offset, what)} of the first fault of each kind.
    """

    raw_records: int = 0
    entries: int = 0
    waiting: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)

    def fault(self, kind: str, count: int, offset: int, what: str) -> None:
        """Note `count` faults of a kind, of which the first is at `offset`."""
        if not count:
            return
        self.faults[kind] += count
        if kind not in self.first or offset < self.first[kind][0]:
            self.first[kind] = (offset, what)


def audit_partition(number: int, extent: Extent, position: int, entries: Entries | None, logs: Logs) -> PartitionAudit:
    """Compare the records of raw partition `number` with its ledger entries and the rows in other topics.

    Args:
        extent: the offsets that raw holds.
        position: the next offset to refine, as committed; what the entries say counts where they are ahead.
    """
    entries = Entries.none() if entries is None else entries
    raw = logs.raw.offsets(number)
    current = entries.offsets[entries.is_current]
    refined = max(position, int(current[-1]) + 1 if current.size else 0)
    result = PartitionAudit(raw_records=raw.size, entries=entries.offsets.size)
    _one_to_one(result, raw, current, extent, refined)
    # Nobody can tell which offsets hold records in what cannot be read, so each of them was given an entry.
    told = entries.offsets[entries.is_current & (entries.skipped == 0) & (entries.counts["rows_lost"] == 0)]
    _without_record(result, raw, told, extent)
    wrong = np.flatnonzero(~entries.is_balanced)
    if wrong.size:
        sums = ", ".join(f"{name} {entries.counts[name][wrong[0]]:,}" for name in ROW_COUNTS)
        result.fault(UNBALANCED, wrong.size, int(entries.offsets[wrong[0]]), f"the entry does not add up: {sums}")
    # Rows of a raw topic that was deleted are in clean and rejected still, and its entries are in the ledger.
    below = max(refined, int(entries.offsets[-1]) + 1 if entries.offsets.size else 0)
    _clean(result, entries, logs.clean.found.of_partition(number, below, unsigned=(1,)))
    rejected = entries.counts["rows_rejected"] - entries.skipped
    _rows(result, "rejected", entries.offsets, rejected, logs.rejected.found.of_partition(number, below))
    for why, found in logs.raw.sent.items():
        sent = entries.counts[f"rows_{why}"] * entries.is_current
        _rows(result, why, entries.offsets, sent, found.of_partition(number, below), at_least=True)
    return result


def _one_to_one(
    result: PartitionAudit, raw: NDArray[np.int64], entries: NDArray[np.int64], extent: Extent, refined: int
) -> None:
    once, times = np.unique(entries, return_counts=True)
    without = raw[~np.isin(raw, once, assume_unique=True)]
    missing = without[without < refined]
    result.waiting = without.size - missing.size
    if missing.size:
        result.fault(MISSING, missing.size, int(missing[0]), "the record has no ledger entry and will not be refined")
    if refined < extent.begin:
        what = f"offsets {refined}-{extent.begin - 1} were removed from raw before they were refined"
        result.fault(REMOVED, 1, refined, f"{what}, and no ledger entry says so")
    again = once[times > 1]
    if again.size:
        extra = int(times[times > 1].sum()) - again.size
        result.fault(DOUBLED, extra, int(again[0]), f"the record has {times[times > 1][0]} ledger entries")


def _without_record(result: PartitionAudit, raw: NDArray[np.int64], entries: NDArray[np.int64], extent: Extent) -> None:
    once = np.unique(entries)
    # Of records that retention removed, the entries remain.
    unknown = once[(once >= extent.begin) & ~np.isin(once, raw, assume_unique=True)]
    if unknown.size:
        result.fault(UNKNOWN, unknown.size, int(unknown[0]), "a ledger entry, but no record")


def _clean(result: PartitionAudit, entries: Entries, found: Spans) -> None:
    first, last, finds = found
    joined = stretches(entries.offsets, (entries.counts["rows_clean"], entries.coverage), first, last, finds)
    rows = joined.claimed[0] != joined.found[0]
    _differs(result, UNBALANCED, rows, joined, "clean")
    coverage = np.flatnonzero(~rows & (joined.claimed[1] != joined.found[1]))
    if coverage.size:
        begin, end = int(joined.first[coverage[0]]), int(joined.last[coverage[0]])
        what = f"the coverage counts of offsets {begin}-{end} differ from a recount of their clean rows"
        result.fault(COVERAGE, coverage.size, begin, what)


def _rows(
    result: PartitionAudit,
    outcome: str,
    offsets: NDArray[np.int64],
    claims: NDArray[np.int64],
    found: Spans,
    *,
    at_least: bool = False,
) -> None:
    first, last, finds = found
    joined = stretches(offsets, (claims,), first, last, finds)
    claimed, held = joined.claimed[0], joined.found[0]
    _differs(result, UNBALANCED, held < claimed if at_least else held != claimed, joined, outcome)


def _differs(result: PartitionAudit, kind: str, where: NDArray[np.bool_], joined: Any, outcome: str) -> None:
    wrong = np.flatnonzero(where)
    if wrong.size:
        begin, end = int(joined.first[wrong[0]]), int(joined.last[wrong[0]])
        claimed, held = int(joined.claimed[0][wrong[0]]), int(joined.found[0][wrong[0]])
        span = str(begin) if begin == end else f"{begin}-{end}"
        what = f"the ledger claims {claimed:,} {outcome} rows of offset {span}, and {held:,} are there"
        result.fault(kind, wrong.size, begin, what)
