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
    if rerouted.height:
        frame = frame.filter(~elsewhere)

    # Both halves keep the order of arrival.
    valid, failures = family.rules.filter(family.derive(frame.select(wire)))
    broken = _with_reasons(failures.details(), frame.columns).select([*wire, "reasons"])

    fresh = pl.Series(index.admit(valid["example_id"].to_numpy()))
    repeated = valid.filter(~fresh).select(wire).with_columns(reasons=pl.lit([DUPLICATE], dtype=pl.List(pl.String)))
    rejected = pl.concat([broken, repeated])
    if broken.height and repeated.height:
        rejected = rejected.sort("record", maintain_order=True)
    return Verdicts(clean=valid.filter(fresh), rejected=rejected, rerouted=rerouted)


def _with_reasons(details: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Return failed rows with `reasons`: the names of the rules that dataframely found broken."""
    verdicts = [name for name, dtype in details.schema.items() if isinstance(dtype, pl.Enum) and name not in columns]
    broken = [pl.when(pl.col(name) == "invalid").then(pl.lit(name)) for name in verdicts]
    return details.with_columns(reasons=pl.concat_list(broken).list.drop_nulls())
