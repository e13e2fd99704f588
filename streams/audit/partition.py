"""Compare the records of one raw partition with its ledger entries, and the entries' claims with the rows found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from broker.topics import Extent
from streams.audit.clean import CleanLog
from streams.audit.ledger import ROW_COUNTS, Entries, LedgerLog
from streams.audit.raw import RawLog
from streams.audit.rejected import RejectedLog
from streams.audit.rows_by_raw_offset import Spans
from streams.audit.spans import offset_ranges

# Kinds of faults, the most serious first; the first fault of an audit is the first one of the most serious kind.
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
    """The content of the four topics."""

    ledger: LedgerLog
    clean: CleanLog
    rejected: RejectedLog
    raw: RawLog


@dataclass
class PartitionAudit:
    """The result for one raw partition.

    Attributes:
        raw_records, entries, waiting: counts of records, ledger entries, and records that are not refined yet.
        faults: the number of faults of each kind.
        first: {kind: (offset, description)} of the first fault of each kind.
    """

    raw_records: int = 0
    entries: int = 0
    waiting: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)

    def fault(self, kind: str, count: int, offset: int, what: str) -> None:
        """Add `count` faults of a kind; the first one is at `offset`."""
        if not count:
            return
        self.faults[kind] += count
        if kind not in self.first or offset < self.first[kind][0]:
            self.first[kind] = (offset, what)


def audit_partition(number: int, extent: Extent, position: int, entries: Entries | None, logs: Logs) -> PartitionAudit:
    """Compare the records of raw partition `number` with its ledger entries and the rows in other topics.

    Args:
        extent: the offsets in raw.
        position: the committed next offset to refine. If the entries are ahead of it, their last offset counts.
    """
    entries = Entries.none() if entries is None else entries
    raw = logs.raw.offsets(number)
    current = entries.offsets[entries.is_current]
    refined = max(position, int(current[-1]) + 1 if current.size else 0)
    result = PartitionAudit(raw_records=raw.size, entries=entries.offsets.size)
    _one_to_one(result, raw, current, extent, refined)
    # Every offset of an unreadable batch got an entry, because its records are not known. They are left out here.
    judged = entries.offsets[entries.is_current & (entries.skipped == 0) & (entries.counts["rows_lost"] == 0)]
    _without_record(result, raw, judged, extent)
    wrong = np.flatnonzero(~entries.is_balanced)
    if wrong.size:
        sums = ", ".join(f"{name} {entries.counts[name][wrong[0]]:,}" for name in ROW_COUNTS)
        result.fault(UNBALANCED, wrong.size, int(entries.offsets[wrong[0]]), f"the entry does not add up: {sums}")
    # Rows of a deleted raw topic are still in clean and rejected, and its entries are still in the ledger.
    below = max(refined, int(entries.offsets[-1]) + 1 if entries.offsets.size else 0)
    _clean(result, entries, logs.clean.by_source.of_partition(number, below, unsigned=(1,)))
    rejected = entries.counts["rows_rejected"] - entries.skipped
    _rows(result, "rejected", entries.offsets, rejected, logs.rejected.by_source.of_partition(number, below))
    for outcome, sent in logs.raw.sent.items():
        claims = entries.counts[f"rows_{outcome}"] * entries.is_current
        _rows(result, outcome, entries.offsets, claims, sent.of_partition(number, below), at_least=True)
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
    # Entries of records that retention removed remain, so only offsets from the present beginning on are compared.
    unknown = once[(once >= extent.begin) & ~np.isin(once, raw, assume_unique=True)]
    if unknown.size:
        result.fault(UNKNOWN, unknown.size, int(unknown[0]), "a ledger entry, but no record")


def _clean(result: PartitionAudit, entries: Entries, found: Spans) -> None:
    first, last, finds = found
    joined = offset_ranges(entries.offsets, (entries.counts["rows_clean"], entries.coverage), first, last, finds)
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
    joined = offset_ranges(offsets, (claims,), first, last, finds)
    claimed, counted = joined.claimed[0], joined.found[0]
    _differs(result, UNBALANCED, counted < claimed if at_least else counted != claimed, joined, outcome)


def _differs(result: PartitionAudit, kind: str, differing: NDArray[np.bool_], joined: Any, outcome: str) -> None:
    wrong = np.flatnonzero(differing)
    if wrong.size:
        begin, end = int(joined.first[wrong[0]]), int(joined.last[wrong[0]])
        claimed, counted = int(joined.claimed[0][wrong[0]]), int(joined.found[0][wrong[0]])
        span = str(begin) if begin == end else f"{begin}-{end}"
        what = f"the ledger claims {claimed:,} {outcome} rows of offset {span}, and {counted:,} are there"
        result.fault(kind, wrong.size, begin, what)
