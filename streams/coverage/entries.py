"""Ledger records -> sums, by family: pure functions over frames.

Takes the bytes and headers of ledger records; gives frames of additions, which may be folded in any batching and order
with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from schema import ledger
from schema.errors import RecordError
from schema.record import LEDGER, ForeignHeaders, Headers, decode

COUNTS = ("rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented")

_GENERATED = (
    pl.col("source_time").min().alias("first_generated"),
    pl.col("source_time").max().alias("last_generated"),
)


@dataclass(frozen=True)
class Sums:
    """What a batch of entries adds, keyed by family.

    Attributes:
        totals: family, entries, the five row counts, first_generated, last_generated.
        reasons: family, reason, rows.
        bins: family, axis, bin, rows, first_generated, last_generated.
        minutes: family, minute (UTC), rows_in, rows_clean.
        accounted: family, partition, next_offset; of raw.
    """

    totals: pl.DataFrame
    reasons: pl.DataFrame
    bins: pl.DataFrame
    minutes: pl.DataFrame
    accounted: pl.DataFrame


def decode_entries(value: bytes | None, headers: Headers, family: str, max_rows: int) -> pl.DataFrame:
    """Return the entries of one ledger record of `family`.

    Raises:
        RecordError: the record is not a whole ledger micro-batch of this version; `reason` says in which way.
    """
    said = ForeignHeaders.parse(headers)
    if said.ce_type != (family, LEDGER, ledger.VERSION):
        raise RecordError("not_a_ledger_record", f"ce_type {said.ce_type} is not {family}.{LEDGER}.v{ledger.VERSION}")
    entries = decode(value or b"", ledger.COLUMNS, max_rows)
    missing = [name for name in COUNTS if entries[name].null_count()]
    if missing:
        raise RecordError("count_missing", f"{', '.join(missing)} missing in an entry")
    return entries


def sums(entries: Mapping[str, pl.DataFrame]) -> Sums:
    """Return what the entries of each family ({family: frame of ledger.COLUMNS}) add up to."""
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
        # A raw partition's entries stand in its own ledger partition, in order, one for each of its records.
        accounted=every.group_by("family", pl.col("source_partition").alias("partition")).agg(
            next_offset=pl.col("source_offset").max() + 1
        ),
    )


def _unpacked(entries: pl.DataFrame, column: str) -> pl.DataFrame:
    """One row per element of the list column, its fields as columns beside family and source_time."""
    return (
        entries.select("family", "source_time", column)
        .explode(column)
        .filter(pl.col(column).is_not_null())
        .unnest(column)
    )
