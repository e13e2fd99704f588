"""The result of an audit: counts, whether everything agrees, and the first fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class AuditFault:
    """A fault that the audit found, and its record; `offset` is None if no single record is at fault."""

    topic: str
    partition: int
    offset: int | None
    what: str

    def __str__(self) -> str:
        where = "" if self.offset is None else f" offset {self.offset}"
        return f"{self.topic}/{self.partition}{where}: {self.what}"


@dataclass(frozen=True)
class CoverageCheck:
    """Whether DuckDB agrees with the ledger; `compared` is False if DuckDB could not be read, and `note` says why."""

    compared: bool
    ok: bool
    note: str


@dataclass(frozen=True)
class AuditReport:
    """The result of an audit; `to_json` is the contract that scripts rely on.

    Attributes:
        raw_records: committed records in raw now.
        ledger_entries: entries in the ledger.
        missing: raw records below the committed position without a ledger entry.
        removed: partitions whose raw records were removed before they were refined, without a ledger entry.
        doubled: ledger entries beyond the first for one raw record.
        unknown: ledger entries for a raw record that does not exist.
        waiting: raw records that no worker has refined yet.
        unbalanced: entries whose rows do not add up, and raw offset ranges whose rows differ from the ledger's counts.
        duplicate_ids: example ids that are in clean twice.
        misplaced: clean rows in another partition than that of their route.
        coverage_differs: raw offset ranges whose coverage counts differ from a recount of their clean rows.
        foreign_records: records in clean, rejected or ledger that no worker wrote; no other count has them.
        rows: the row counts of all entries, by column of the ledger.
        rejected_by_reason: {reason: rows}, of all entries.
        rows_retracted: clean rows that are retracted, or whose origin is; they are no fault.
        coverage: the comparison with DuckDB.
        first_fault: the first fault, or None.
    """

    family: str
    raw_records: int
    ledger_entries: int
    missing: int
    removed: int
    doubled: int
    unknown: int
    waiting: int
    unbalanced: int
    duplicate_ids: int
    misplaced: int
    coverage_differs: int
    foreign_records: int
    rows: Mapping[str, int]
    coverage: CoverageCheck
    first_fault: AuditFault | None
    rejected_by_reason: Mapping[str, int] = field(default_factory=dict)
    rows_retracted: int = 0
    elapsed_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything that could be compared agrees."""
        return self.first_fault is None

    def to_json(self) -> dict[str, Any]:
        """Return the report as one JSON object."""
        document = asdict(self)
        rows = document.pop("rows")
        return {"ok": self.ok, **document, **rows}
