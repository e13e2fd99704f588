"""The chain: rows -> verdicts. Pure over frames, but for the partition's dedup index.

The order is the contract's: route, validate, deduplicate; quota gates come after dedup (a duplicate uses up no quota)
and augmentation last (only of what went to clean).
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from schema.family import Family, identify, partition_of
from streams.refine.dedup import DedupIndex

DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Verdicts:
    """What became of the rows of one group; each row stands in exactly one frame, in order of arrival.

    All three have the wire columns and `record`. `clean` also has the family's derived columns, for accounting;
    `rejected` also has `reasons` (List(String), rule names); `rerouted` also has `partition` (Int32).
    """

    clean: pl.DataFrame
    rejected: pl.DataFrame
    rerouted: pl.DataFrame


def judge(frame: pl.DataFrame, family: Family, partition: int, partitions: int, index: DedupIndex) -> Verdicts:
    """Return the verdicts on `frame` (wire columns and `record`), as the owner of raw partition `partition`.

    `index` remembers the ids of what went to clean.
    """
    wire = [*family.wire, "record"]
    frame = identify(frame, family).with_columns(partition_of(family, partitions))
    elsewhere = (frame["partition"] != partition).fill_null(False)
    rerouted = frame.filter(elsewhere).select([*wire, "partition"])
    frame = family.derive(frame.filter(~elsewhere).select(wire)).with_row_index("row")

    _, failures = family.rules.filter(frame)
    valid, broken = frame, frame.head(0).select(wire).with_columns(reasons=pl.lit([], dtype=pl.List(pl.String)))
    if len(failures):
        details = failures.details()
        names = [name for name in details.columns if name not in frame.columns]
        reasons = details.select(
            "row",
            reasons=pl.concat_list(
                [pl.when(pl.col(name).cast(pl.String) == "invalid").then(pl.lit(name)) for name in names]
            ).list.drop_nulls(),
        )
        broken = frame.join(reasons, on="row", how="inner", maintain_order="left").select([*wire, "reasons"])
        valid = frame.join(reasons, on="row", how="anti", maintain_order="left")

    fresh = index.admit(valid["example_id"].to_numpy())
    clean = valid.filter(pl.Series(fresh))
    repeated = (
        valid.filter(pl.Series(~fresh)).select(wire).with_columns(reasons=pl.lit([DUPLICATE], dtype=pl.List(pl.String)))
    )
    rejected = pl.concat([broken, repeated])
    if broken.height and repeated.height:
        rejected = rejected.sort("record", maintain_order=True)
    return Verdicts(clean=clean.drop("row"), rejected=rejected, rerouted=rerouted)
