"""Ledger records -> sums, by family: pure functions over frames.

Takes the bytes and headers of ledger records; gives frames of additions, which may be folded in any batching and order
with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from schema import ledger
from schema.errors import RecordError
from schema.record import LEDGER, ForeignHeaders, Headers, decode

COUNTS = ("rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost")

# Beyond what any entry of ours says, and far from what sums of them could overflow.
_LARGEST_COUNT = 2**48
_LARGEST_OFFSET = 2**62
_LARGEST_PARTITION = 2**20
_LONGEST_NAME = 1024

_GENERATED = (
    pl.col("source_time").min().alias("first_generated"),
    pl.col("source_time").max().alias("last_generated"),
)


@dataclass(frozen=True)
class Sums:
    """What a batch of entries adds, keyed by family.

    Attributes:
        totals: family, entries, the six row counts, first_generated, last_generated.
        reasons: family, reason, rows.
        bins: family, axis, bin, rows, first_generated, last_generated.
        minutes: family, minute (UTC), rows_in, rows_clean.
        accounted: family, partition, next_offset; of raw.
        foreign: family, partition, records, last_offset, last_reason; of the ledger: records that are no entries.
    """

    totals: pl.DataFrame
    reasons: pl.DataFrame
    bins: pl.DataFrame
    minutes: pl.DataFrame
    accounted: pl.DataFrame
    foreign: pl.DataFrame

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to add."""
        return self.totals.is_empty() and self.foreign.is_empty()


@dataclass(frozen=True)
class ForeignRecord:
    """A record of the ledger that is no ledger record: where it stands, and why it cannot be folded."""

    partition: int
    offset: int
    reason: str


def decode_entries(value: bytes | None, headers: Headers, family: str, max_rows: int) -> pl.DataFrame:
    """Return the entries of one ledger record of `family`, every one of which can be folded.

    Anybody can write to a topic, so nothing is taken on trust. A time that is no date between 1970 and 9999 is null.

    Raises:
        RecordError: the record is not a whole ledger micro-batch of this version; `reason` says in which way.
    """
    said = ForeignHeaders.parse(headers)
    if said.ce_type != (family, LEDGER, ledger.VERSION):
        raise RecordError("not_a_ledger_record", f"ce_type {said.ce_type} is not {family}.{LEDGER}.v{ledger.VERSION}")
    entries = decode(value or b"", ledger.COLUMNS, max_rows).with_columns(pl.col("rows_lost").fill_null(0))
    missing = [name for name in COUNTS if entries[name].null_count()]
    if missing:
        raise RecordError("count_missing", f"{', '.join(missing)} missing in an entry")
    ranges = dict.fromkeys(COUNTS, _LARGEST_COUNT) | {
        "source_partition": _LARGEST_PARTITION,
        "source_offset": _LARGEST_OFFSET,
    }
    for name, most in ranges.items():
        if not _all(entries[name].is_between(0, most)):
            raise RecordError("out_of_range", f"{name} of an entry is missing, negative, or over {most}")
    for column, names in (("reasons", ("reason",)), ("coverage", ("axis", "bin"))):
        counted = entries.select(pl.col(column).explode(empty_as_null=False)).drop_nulls().unnest(column)
        if not _all(counted["rows"].is_between(0, _LARGEST_COUNT)):
            raise RecordError("out_of_range", f"rows in {column} of an entry is missing, negative, or too large")
        for name in names:
            lengths = counted[name].str.len_bytes()
            if not _all(lengths.is_between(1, _LONGEST_NAME)) or counted[name].str.contains("\0", literal=True).any():
                raise RecordError("malformed_name", f"a name in {column} of an entry is missing or malformed")
    time_ms = pl.col("source_time").to_physical()
    return entries.with_columns(pl.when(time_ms.is_between(0, ledger.LATEST_TIME_MS)).then(pl.col("source_time")))


def _all(verdicts: pl.Series) -> bool:
    return bool(verdicts.fill_null(False).all())


def sums(entries: Mapping[str, pl.DataFrame], foreign: Mapping[str, Sequence[ForeignRecord]] | None = None) -> Sums:
    """Return what the entries of each family ({family: frame of ledger.COLUMNS}) add up to.

    `foreign` are the ledger records of each family that are no entries, in order of offset in each partition.
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
        # A raw partition's entries stand in its own ledger partition, in order, one for each of its records.
        accounted=every.group_by("family", pl.col("source_partition").alias("partition")).agg(
            next_offset=pl.col("source_offset").max() + 1
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
    """One row per element of the list column, its fields as columns beside family and source_time."""
    return (
        entries.select("family", "source_time", column)
        .explode(column)
        .filter(pl.col(column).is_not_null())
        .unnest(column)
    )
