"""What DuckDB holds, compared with the sum of the ledger entries up to the position that DuckDB stores."""

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
    """Return what coverage holds now, or in one line why nobody can say."""
    try:
        return stored_coverage(connection, family.name)
    except CoverageError as error:
        return " ".join(str(error).split())


def check(
    family: Family, stored: StoredCoverage | str, ledger: Mapping[int, Extent], folded: LedgerSums
) -> CoverageCheck:
    """Compare what coverage holds with `folded`, the sums of the entries below its positions.

    `ledger` is the extent of each ledger partition. Where records were removed from the ledger's beginning there is
    nothing to compare with, and nothing agrees.
    """
    if isinstance(stored, str):
        return CoverageCheck(False, True, f"DuckDB was not compared, for nobody could answer: {stored}")
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
    """Return each count that differs, as `what: DuckDB has n, the ledger m`."""
    wanted: dict[str, int] = {name: folded.counts[name] for name in ("entries", *ROW_COUNTS) if name in report}
    found: dict[str, int] = {name: report[name] for name in wanted}
    wanted |= {f"reason {reason}": rows for reason, rows in folded.reasons.items()}
    found |= {f"reason {reason}": rows for reason, rows in report["rejected_by_reason"].items()}
    axes = {axis.name for axis in family.axes}
    cells = {cell_label(cell) for cell in family.cells()}
    for (axis, bin_), rows in folded.bins.items():
        # A report leaves out what is not declared any more.
        if axis in axes or (axis == CELL_AXIS and bin_ in cells):
            wanted[f"{axis} {bin_}"] = rows
    for axis, bins in report["axes"].items():
        found |= {f"{axis} {bin_}": rows for bin_, rows in bins.items()}
    found |= {f"{CELL_AXIS} {label}": rows for label, rows in report["cells"].items()}
    return [
        f"{name}: DuckDB has {found.get(name, 0):,}, the ledger {wanted.get(name, 0):,}"
        for name in (*wanted, *(found.keys() - wanted.keys()))
        if found.get(name, 0) != wanted.get(name, 0)
    ]
