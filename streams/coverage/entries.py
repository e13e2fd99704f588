"""Sum ledger entries by family: pure functions over frames.

Takes frames of entries from `schema.ledger_entries`; returns frames of additions. Folding them in any order and batch
size gives the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from schema import ledger
from schema.ledger_entries import COUNTS

_GENERATED = (
    pl.col("source_time").min().alias("first_generated"),
    pl.col("source_time").max().alias("last_generated"),
)


@dataclass(frozen=True)
class Sums:
    """The additions of a batch of ledger entries, by family.

    Attributes:
        totals: family, entries, the six row counts, first_generated, last_generated.
        reasons: family, reason, rows.
        bins: family, axis, bin, rows, first_generated, last_generated.
        minutes: family, minute (UTC), rows_in, rows_clean.
        accounted: family, partition, raw_topic_id, first_offset, next_offset; only for the raw topic of the last entry.
        foreign: family, partition, records, last_offset, last_reason of ledger records that are no entries.
    """

    totals: pl.DataFrame
    reasons: pl.DataFrame
    bins: pl.DataFrame
    minutes: pl.DataFrame
    accounted: pl.DataFrame
    foreign: pl.DataFrame

    @property
    def is_empty(self) -> bool:
        """Whether the batch adds nothing."""
        return self.totals.is_empty() and self.foreign.is_empty()


@dataclass(frozen=True)
class ForeignRecord:
    """A record on the ledger topic that is no valid ledger record: its offset and why it cannot be folded."""

    partition: int
    offset: int
    reason: str


def sums(entries: Mapping[str, pl.DataFrame], foreign: Mapping[str, Sequence[ForeignRecord]] | None = None) -> Sums:
    """Return the sums of the entries of each family ({family: frame of ledger.COLUMNS}).

    `foreign` holds the ledger records of each family that are no entries, in offset order in each partition.
    """
    empty = pl.DataFrame(schema={"family": pl.String(), **ledger.COLUMNS})
    frames = [frame.select(pl.lit(family).alias("family"), *ledger.COLUMNS) for family, frame in entries.items()]
    every = pl.concat([empty, *frames])
    return Sums(
        totals=every.group_by("family").agg(
            pl.len().cast(pl.Int64).alias("entries"), *(pl.col(name).sum() for name in COUNTS), *_GENERATED
        ),
        reasons=_unpacked(every, "reasons").group_by("family", "reason").agg(pl.col("rows").sum()),
        bins=_unpacked(every, "coverage").group_by("family", "axis", "bin").agg(pl.col("rows").sum(), *_GENERATED),
        minutes=every.filter(pl.col("source_time").is_not_null())
        .group_by("family", pl.col("source_time").dt.truncate("1m").alias("minute"))
        .agg(pl.col("rows_in").sum(), pl.col("rows_clean").sum()),
        # A raw partition's entries are in the ledger partition of the same number, in order, one for each record.
        accounted=every.group_by("family", pl.col("source_partition").alias("partition")).agg(
            raw_topic_id=pl.col("source_topic_id").last(),
            # One entry covers all the offsets that retention removed at once.
            first_offset=(pl.col("source_offset") - (pl.col("rows_lost") - 1).clip(0))
            .filter(pl.col("source_topic_id").eq_missing(pl.col("source_topic_id").last()))
            .min(),
            next_offset=pl.col("source_offset")
            .filter(pl.col("source_topic_id").eq_missing(pl.col("source_topic_id").last()))
            .max()
            + 1,
        ),
        foreign=pl.DataFrame(
            [
                (family, record.partition, record.offset, record.reason)
                for family, records in (foreign or {}).items()
                for record in records
            ],
            schema={"family": pl.String, "partition": pl.Int32, "offset": pl.Int64, "reason": pl.String},
            orient="row",
        )
        .group_by("family", "partition", maintain_order=True)
        .agg(
            records=pl.len().cast(pl.Int64),
            last_offset=pl.col("offset").last(),
            last_reason=pl.col("reason").last(),
        ),
    )


def _unpacked(entries: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return one row per element of the list column: its fields as columns, and family and source_time."""
    return (
        entries.select("family", "source_time", column)
        .explode(column)
        .filter(pl.col(column).is_not_null())
        .unnest(column)
    )
