"""Compare the counts in DuckDB with the sum of the ledger entries up to the position stored in DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.clients import Connection
from broker.topics import Extent
from schema.errors import CoverageError
from schema.family import CELL_AXIS, Family, cell_label
from streams.audit.ledger import ROW_COUNTS, LedgerSums
from streams.audit.report import CoverageCheck
from streams.coverage.client import StoredCoverage, stored_coverage


def ask(connection: Connection, family: Family) -> StoredCoverage | str:
    """Return the stored coverage, or one line on why it cannot be read."""
    try:
        return stored_coverage(connection, family.name)
    except CoverageError as error:
        return " ".join(str(error).split())


def check(
    family: Family, stored: StoredCoverage | str, ledger: Mapping[int, Extent], folded: LedgerSums
) -> CoverageCheck:
    """Compare the stored coverage with `folded`, the sums of the entries below its positions.

    `ledger` is the extent of each ledger partition. If records were removed from the ledger's beginning, the check
    fails, because the sums are incomplete.
    """
    if isinstance(stored, str):
        return CoverageCheck(False, True, f"DuckDB was not compared, because it cannot be read: {stored}")
    removed = [number for number, extent in ledger.items() if extent.begin > 0]
    if removed:
        number = min(removed)
        note = f"entries below offset {ledger[number].begin} of ledger partition {number} were removed"
        return CoverageCheck(True, False, f"coverage cannot be checked: {note}")
    differences = _differences(family, stored.report, folded)
    if differences:
        return CoverageCheck(True, False, f"DuckDB differs from the fold of the ledger: {differences[0]}")
    entries = folded.counts["entries"]
    return CoverageCheck(True, True, f"DuckDB equals the fold of the {entries:,} entries up to its position")


def _differences(family: Family, report: Mapping[str, Any], folded: LedgerSums) -> list[str]:
    """Return each count that differs, as `name: DuckDB has n, the ledger m`."""
    in_ledger: dict[str, int] = {name: folded.counts[name] for name in ("entries", *ROW_COUNTS) if name in report}
    in_duckdb: dict[str, int] = {name: report[name] for name in in_ledger}
    in_ledger |= {f"reason {reason}": rows for reason, rows in folded.reasons.items()}
    in_duckdb |= {f"reason {reason}": rows for reason, rows in report["rejected_by_reason"].items()}
    axes = {axis.name for axis in family.axes}
    cells = {cell_label(cell) for cell in family.cells()}
    for (axis, bin_), rows in folded.bins.items():
        # A report leaves out bins and cells that are no longer declared.
        if axis in axes or (axis == CELL_AXIS and bin_ in cells):
            in_ledger[f"{axis} {bin_}"] = rows
    for axis, bins in report["axes"].items():
        in_duckdb |= {f"{axis} {bin_}": rows for bin_, rows in bins.items()}
    in_duckdb |= {f"{CELL_AXIS} {label}": rows for label, rows in report["cells"].items()}
    # The ledger still counts the rows that were retracted.
    for axis, bins in report["retracted"].items():
        for bin_, rows in bins.items():
            if axis in axes or (axis == CELL_AXIS and bin_ in cells):
                in_duckdb[f"{axis} {bin_}"] = in_duckdb.get(f"{axis} {bin_}", 0) + rows
    return [
        f"{name}: DuckDB has {in_duckdb.get(name, 0):,}, the ledger {in_ledger.get(name, 0):,}"
        for name in (*in_ledger, *(in_duckdb.keys() - in_ledger.keys()))
        if in_duckdb.get(name, 0) != in_ledger.get(name, 0)
    ]
