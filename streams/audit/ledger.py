"""The ledger of one family as flat arrays: the claims of each entry, and the sums to compare with coverage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import polars_hash as plh
from numpy.typing import NDArray

from schema import ledger
from schema.family import Family
from schema.record import LEDGER
from streams.audit.scan import decode_batch

# The ledger's columns that count rows.
ROW_COUNTS = tuple(name for name in ledger.COLUMNS if name.startswith("rows_"))
_SOURCE = ("source_partition", "source_offset")
# The outcomes of a row that came in. Augmented rows are not among them: they are new rows, which come in later.
OUTCOMES = tuple(name for name in ROW_COUNTS if name not in ("rows_in", "rows_augmented"))


@dataclass
class LedgerSums:
    """Sums over ledger entries: the entries themselves, row counts, reasons, and coverage by (axis, bin)."""

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bins: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, entries: pl.DataFrame) -> None:
        """Add a frame of entries."""
        self.counts["entries"] += entries.height
        self.counts.update(entries.select(pl.col(ROW_COUNTS).sum()).row(0, named=True))
        self.reasons.update(dict(_summed(entries, "reasons", ["reason"]).iter_rows()))
        for axis, bin_, rows in _summed(entries, "coverage", ["axis", "bin"]).iter_rows():
            self.bins[axis, bin_] += rows

    def __add__(self, other: LedgerSums) -> LedgerSums:
        return LedgerSums(self.counts + other.counts, self.reasons + other.reasons, self.bins + other.bins)


def _summed(entries: pl.DataFrame, column: str, by: list[str]) -> pl.DataFrame:
    listed = entries.select(pl.col(column).explode(empty_as_null=False)).drop_nulls().unnest(column)
    return listed.group_by(by).agg(pl.col("rows").sum())


@dataclass(frozen=True)
class Entries:
    """The entries of one raw partition, sorted by offset.

    Attributes:
        offsets: (N,) offsets of the raw records; an offset with two entries occurs twice.
        is_current: (N,) whether the entry belongs to the present raw topic, not to a deleted one.
        counts: {column: (N,)} for each of ROW_COUNTS.
        skipped: (N,) rejected rows of skipped records, which have no rows in rejected.
        coverage: (N,) uint64, the fingerprint of the coverage counts, as `fingerprints` defines it.
    """

    offsets: NDArray[np.int64]
    is_current: NDArray[np.bool_]
    counts: Mapping[str, NDArray[np.int64]]
    skipped: NDArray[np.int64]
    coverage: NDArray[np.uint64]

    @classmethod
    def none(cls) -> Entries:
        """Return the entries of a partition without entries."""
        nothing = np.empty(0, np.int64)
        counts = dict.fromkeys(ROW_COUNTS, nothing)
        return cls(nothing, np.empty(0, np.bool_), counts, nothing, np.empty(0, np.uint64))

    @property
    def is_balanced(self) -> NDArray[np.bool_]:
        """(N,) whether rows in equal the sum of the outcomes."""
        outcomes = np.sum([self.counts[name] for name in OUTCOMES], axis=0)
        return np.asarray(self.counts["rows_in"] == outcomes)


def fingerprints(axis: pl.Expr, bins: pl.Expr) -> pl.Expr:
    """Return a random-looking uint64 for each (axis, bin).

    The fingerprint of coverage counts is the sum of rows times these numbers, modulo 2^64. Sums of fingerprints are
    fingerprints of sums, so counts of millions of bins are compared by one number, wrong once in 2^64.
    """
    codes: pl.Expr = plh.concat_str(axis, pl.lit("\0"), bins).nchash.xxh3_64()
    return codes


class LedgerLog:
    """Collects ledger entries.

    Args:
        raw_topic_id: the id of the present raw topic.
        stored: {ledger partition: next offset for coverage to fold}; `folded` has the sums below these offsets.
    """

    def __init__(self, family: Family, raw_topic_id: str, stored: Mapping[int, int]) -> None:
        self._raw_topic_id = raw_topic_id
        self._ce_type = (family.name, LEDGER, ledger.VERSION)
        self._stored = stored
        self._frames: list[pl.DataFrame] = []
        self.folded = LedgerSums()
        self.beyond = LedgerSums()
        self.foreign = 0
        self.first_entry_ms: dict[int, int] = {}

    def add(self, records: Sequence[Any]) -> None:
        """Add records of the ledger."""
        batch = decode_batch(records, self._ce_type, ledger.COLUMNS)
        self.foreign += batch.foreign
        for record in batch.records:
            self.first_entry_ms.setdefault(record.partition, record.timestamp)
        entries = batch.frame.with_columns(pl.col(ROW_COUNTS).fill_null(0)).drop_nulls(_SOURCE)
        self.foreign += batch.frame.height - entries.height
        is_folded = np.array([r.offset < self._stored.get(r.partition, 0) for r in batch.records], dtype=np.bool_)
        folded = pl.Series(is_folded[entries["record"].to_numpy()], dtype=pl.Boolean)
        self.folded.add(entries.filter(folded))
        self.beyond.add(entries.filter(~folded))
        self._frames.append(self._flat(entries))

    def by_partition(self) -> dict[int, Entries]:
        """Return all entries by raw partition."""
        every = pl.concat(self._frames) if self._frames else self._flat(pl.DataFrame(schema=ledger.COLUMNS))
        self._frames = [every]
        return {
            int(partition): Entries(
                mine["source_offset"].to_numpy(),
                mine["is_current"].to_numpy(),
                {name: mine[name].to_numpy() for name in ROW_COUNTS},
                mine["skipped"].to_numpy(),
                mine["fingerprint"].to_numpy(),
            )
            for (partition,), mine in every.sort("source_offset", maintain_order=True)
            .partition_by("source_partition", as_dict=True, maintain_order=True)
            .items()
        }

    def is_passed_over(self, partition: int, offsets: range) -> bool:
        """Return whether every one of these raw offsets was skipped as unreadable or is counted as lost."""
        entries = self.by_partition().get(partition, Entries.none())
        lost = entries.counts["rows_lost"]
        passed = np.flatnonzero(entries.is_current & ((entries.skipped > 0) | (lost > 0)))
        last = entries.offsets[passed]
        # One entry covers all offsets that retention removed at once, and names the last of them.
        first = last - np.maximum(lost[passed], 1) + 1
        wanted = np.arange(offsets.start, offsets.stop)
        entry = np.searchsorted(last, wanted)
        return bool(np.all(entry < last.size) and np.all(first[entry] <= wanted))

    def _flat(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Return the entries as columns of numbers."""
        reason = pl.element().struct.field("reason")
        skipped = pl.when(reason == ledger.SKIPPED).then(pl.element().struct.field("rows")).otherwise(0)
        return entries.select(
            *_SOURCE,
            *ROW_COUNTS,
            is_current=(pl.col("source_topic_id") == self._raw_topic_id).fill_null(True),
            skipped=pl.col("reasons").list.eval(skipped).list.sum().fill_null(0),
            fingerprint=_coverage_fingerprints(entries),
        )


def _coverage_fingerprints(entries: pl.DataFrame) -> pl.Series:
    lengths = entries["coverage"].list.len().fill_null(0).to_numpy()
    listed = entries.select(pl.col("coverage").explode(empty_as_null=False)).drop_nulls().unnest("coverage")
    codes = listed.select(fingerprints(pl.col("axis"), pl.col("bin")).fill_null(0))["axis"].to_numpy()
    with np.errstate(over="ignore"):
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * listed["rows"].to_numpy().astype(np.uint64))])
    ends = np.cumsum(lengths)
    return pl.Series(sums[ends] - sums[ends - lengths], dtype=pl.UInt64)
