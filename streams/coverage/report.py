"""Make the coverage report from the store's counts: pure functions.

The report's keys, listed in `coverage_report`, are a contract that scripts rely on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any

from schema.axes import verdicts
from schema.family import CELL_AXIS, Family, cell_label
from schema.ledger_entries import COUNTS
from streams.coverage.store import Counts

_MINUTES_REPORTED = 30


def coverage_report(family: Family, counts: Counts) -> dict[str, Any]:
    """Return the report of `family`, ready for JSON.

    Keys:
        family; entries (raw records accounted for); rows_in, rows_clean, rows_rejected, rows_rerouted, rows_augmented,
        rows_lost (raw records that retention removed before they were refined).
        balanced: rows_in == rows_clean + rows_rejected + rows_rerouted + rows_lost, and the ledger was complete.
        ledger_removed: [{partition, before_offset}] of ledger partitions whose first entries were removed before they
        were folded; these entries are not counted.
        missing_entries: [{partition, first_offset, next_offset}] of raw records that were refined but have no ledger
        entry.
        foreign_records: [{partition, records, last_offset, last_reason}] of ledger records that are no entries.
        rejected_by_reason: {reason: rows}; a row that breaks two rules counts under both.
        rows_retracted: rows of clean that are retracted; rows_clean counts them, too.
        retracted_by_reason: {reason: rows}.
        retracted: {axis: {bin: rows}} of retracted rows, cells under `cell`; the figures below do not count these rows.
        axes: {axis: {bin: rows}}, every declared bin, then bins that only older entries have.
        cell_axes: the axes whose cross product makes the cells; cells: {label: rows}, those with rows.
        cells_total: the full cross product; cells_possible: those that can exist; cells_covered: those with rows.
        avg_per_cell: rows in cells / cells_total.
        gaps_to_fill: the result of `gaps`.
        quotas: [{name, kind, axis, bins, target, actual, ok}], as declared.
        first_generated, last_generated: ISO times (UTC) of the first and last raw record, or null.
        rows_per_minute: {ISO minute: rows in}, of the last 30 minutes with rows.
    """
    cells = counts.bins.get(CELL_AXIS, {})
    declared = list(family.cells())
    covered = {label: cells[label] for cell in declared if cells.get(label := cell_label(cell))}
    totals = {name: counts.totals[name] for name in COUNTS}
    outcomes = sum(totals[name] for name in ("rows_clean", "rows_rejected", "rows_rerouted", "rows_lost"))
    removed = [
        {"partition": partition, "before_offset": begin} for partition, (begin, _) in counts.positions.items() if begin
    ]
    missing = [
        {"partition": partition, "first_offset": begin, "next_offset": end}
        for partition, (begin, end) in counts.missing.items()
    ]
    first, last = counts.generated or (None, None)
    return {
        "family": family.name,
        "entries": counts.totals["entries"],
        **totals,
        "balanced": totals["rows_in"] == outcomes and not removed and not missing,
        "ledger_removed": removed,
        "missing_entries": missing,
        "foreign_records": [
            dict(zip(("partition", "records", "last_offset", "last_reason"), values, strict=True))
            for values in counts.foreign
        ],
        "rejected_by_reason": dict(counts.reasons),
        "rows_retracted": counts.retracted.rows,
        "retracted_by_reason": dict(counts.retracted.reasons),
        "retracted": {axis: dict(bins) for axis, bins in counts.retracted.bins.items()},
        "axes": {axis.name: _marginal(axis.bins, counts.bins.get(axis.name, {})) for axis in family.axes},
        "cell_axes": list(family.cell_axes),
        "cells": covered,
        "cells_total": len(declared),
        "cells_possible": sum(family.cell_possible(cell) for cell in declared),
        "cells_covered": len(covered),
        "avg_per_cell": sum(covered.values()) / len(declared) if declared else 0.0,
        "gaps_to_fill": gaps(family, counts),
        "quotas": verdicts(family.quotas, counts.bins),
        "first_generated": _iso(first),
        "last_generated": _iso(last),
        "rows_per_minute": {_iso(start): rows for start, rows, _ in counts.minutes[-_MINUTES_REPORTED:]},
    }


def ledger_lines(report: Mapping[str, Any]) -> list[str]:
    """Return one warning line for each fault of the ledger behind the report."""
    family = report["family"]
    lines = [
        f"ledger partition {removed['partition']} begins at offset {removed['before_offset']}: earlier entries were "
        f"removed before they were counted, so all figures are too low; see `feedmill audit {family}`"
        for removed in report["ledger_removed"]
    ]
    lines += [
        f"the ledger has no entries for raw offsets {gap['first_offset']}-{gap['next_offset'] - 1} of partition "
        f"{gap['partition']}, which were refined, so all figures are too low; see `feedmill audit {family}`"
        for gap in report["missing_entries"]
    ]
    return lines + foreign_lines(report)


def foreign_lines(report: Mapping[str, Any]) -> list[str]:
    """Return one warning line for each ledger partition with records that are no entries."""
    return [
        f"ledger partition {each['partition']}: {each['records']:,} records are no entries and were passed over, the "
        f"last at offset {each['last_offset']} ({each['last_reason']}): only refine workers may write there"
        for each in report["foreign_records"]
    ]


def gaps(family: Family, counts: Counts) -> list[dict[str, Any]]:
    """Return the gaps as [{axis: bin, ..., count, deficit}], largest deficit first, then in declared order.

    A gap is a cell with fewer rows than `family.minimum_of` requires (one key per cell axis), or a bin below its
    `min_count` quota (one key).
    """
    missing: list[dict[str, Any]] = [
        {**cell, "count": count, "deficit": deficit} for cell, count, deficit in cell_deficits(family, counts)
    ]
    for quota in family.quotas:
        if quota.kind == "min_count":
            for bin_ in quota.bins:
                count = counts.bins.get(quota.axis, {}).get(bin_, 0)
                if count < quota.target:
                    missing.append({quota.axis: bin_, "count": count, "deficit": ceil(quota.target) - count})
    return sorted(missing, key=lambda gap: -int(gap["deficit"]))


def cell_deficits(family: Family, counts: Counts) -> Iterator[tuple[dict[str, str], int, int]]:
    """Yield (cell, rows, rows missing) of each cell below its minimum, in declared order."""
    cells = counts.bins.get(CELL_AXIS, {})
    for cell in family.cells():
        count = cells.get(cell_label(cell), 0)
        if (minimum := family.minimum_of(cell)) > count:
            yield cell, count, minimum - count


def _marginal(declared: tuple[str, ...], counted: Mapping[str, int]) -> dict[str, int]:
    return {name: counted.get(name, 0) for name in declared} | {
        name: rows for name, rows in counted.items() if name not in declared
    }


def _iso(time_ms: int | None) -> str | None:
    return None if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
