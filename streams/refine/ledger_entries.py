"""Turn verdicts into ledger entries, exactly one per raw record.

Rows are counted by a histogram per axis over (record, bin) on flat arrays; an entry lists only the bins with rows. In
each entry rows_in = rows_clean + rows_rejected + rows_rerouted. A dead letter counts `DeadLetter.rows` rows in, and as
many rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schema import ledger
from schema.buffers import lists_of
from schema.family import CELL_AXIS, Family, axis_codes, cell_codes, cell_label
from streams.refine.decode import Intake, RawRecord
from streams.refine.judge import Verdicts


def entries(
    records: Sequence[RawRecord], intake: Intake, verdicts: Verdicts, augmented: NDArray[np.int64], family: Family
) -> pl.DataFrame:
    """Return the ledger entries (`schema.ledger.COLUMNS`) of a group, one per record, in order.

    `augmented` counts, per record, the rows that augmentation sent to raw.
    """
    count = len(records)
    dead = np.zeros(count, dtype=np.int64)
    for letter in intake.dead:
        dead[letter.record] += letter.rows
    clean = _per_record(verdicts.clean["record"].to_numpy(), count)
    rejected = _per_record(verdicts.rejected["record"].to_numpy(), count) + dead
    rerouted = _per_record(verdicts.rerouted["record"].to_numpy(), count)
    rows_in = _per_record(intake.frame["record"].to_numpy(), count) + dead
    return pl.DataFrame(
        {
            "source_partition": [record.partition for record in records],
            # The partition's owner knows the topic's id and fills it in.
            "source_topic_id": None,
            "source_offset": [record.offset for record in records],
            "source_time": pl.Series([ledger.sound_time_ms(record.time_ms) for record in records], dtype=pl.Int64).cast(
                ledger.COLUMNS["source_time"]
            ),
            "run": intake.runs,
            "chunk": intake.chunks,
            "rows_in": rows_in,
            "rows_clean": clean,
            "rows_rejected": rejected,
            "rows_rerouted": rerouted,
            "rows_augmented": augmented,
            "rows_lost": 0,
            "reasons": _reasons(intake, verdicts, count),
            "coverage": _coverage(verdicts.clean, family, count),
        },
        schema=ledger.COLUMNS,
    )


def _per_record(indices: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    return np.bincount(indices.astype(np.int64), minlength=count)


def _reasons(intake: Intake, verdicts: Verdicts, count: int) -> pl.Series:
    broken = (
        verdicts.rejected.select("record", "reasons")
        .explode("reasons", empty_as_null=False)
        .with_columns(rows=pl.lit(1, dtype=pl.Int64))
    )
    dead = pl.DataFrame(
        [(letter.record, letter.reason, letter.rows) for letter in intake.dead],
        schema={"record": pl.UInt32, "reasons": pl.String, "rows": pl.Int64},
        orient="row",
    )
    counted = (
        pl.concat([broken, dead])
        .group_by("record", pl.col("reasons").alias("reason"), maintain_order=True)
        .agg(pl.col("rows").sum())
        .group_by("record", maintain_order=True)
        .agg(pl.struct("reason", "rows").alias("reasons"))
    )
    every = pl.DataFrame({"record": np.arange(count, dtype=np.uint32)})
    empty = pl.lit([], dtype=ledger.COLUMNS["reasons"])
    return every.join(counted, on="record", how="left", maintain_order="left").select(
        pl.col("reasons").fill_null(empty)
    )["reasons"]


@lru_cache
def _labels(family: Family) -> tuple[pa.Array, pa.Array, dict[str, int]]:
    """(axis name, bin name) of every countable bin as two flat arrays, and the index at which each axis begins."""
    axes: list[str] = []
    bins: list[str] = []
    starts: dict[str, int] = {}
    for axis in family.axes:
        starts[axis.name] = len(bins)
        axes += [axis.name] * len(axis.bins)
        bins += axis.bins
    starts[CELL_AXIS] = len(bins)
    cells = [cell_label(cell) for cell in family.cells()]
    axes += [CELL_AXIS] * len(cells)
    bins += cells
    return pa.array(axes, pa.large_string()), pa.array(bins, pa.large_string()), starts


def _coverage(clean: pl.DataFrame, family: Family, count: int) -> pl.Series:
    """Return List(Struct(axis, bin, rows)) per record: the bins that its clean rows fall into."""
    axis_names, bin_names, starts = _labels(family)
    total_bins = len(bin_names)
    record = clean["record"].to_numpy().astype(np.int64)
    codes = axis_codes(clean, family.axes)
    flat = np.zeros(count * total_bins, dtype=np.int64)

    def tally(start: int, code: NDArray[np.int64]) -> None:
        counted = code >= 0
        flat[:] += np.bincount(record[counted] * total_bins + start + code[counted], minlength=flat.size)

    for axis in family.axes:
        tally(starts[axis.name], codes[axis.name].to_numpy())
    tally(starts[CELL_AXIS], cell_codes(codes, family))

    hit = np.flatnonzero(flat)
    of_record, label = hit // total_bins, hit % total_bins
    structs = pa.StructArray.from_arrays(
        [axis_names.take(pa.array(label)), bin_names.take(pa.array(label)), pa.array(flat[hit])],
        names=["axis", "bin", "rows"],
    )
    return lists_of(structs, np.bincount(of_record, minlength=count))
