"""The last step of the chain: augmented rows of what went to clean, on their way to raw.

There they are rows like any other: the same rules, duplicates refused, accounted for. Only they are never augmented
again. How many copies a row gets follows from its id alone, so a group that is refined again, after a failure, makes
the same rows.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.errors import RefineError
from schema.family import Family, identify, partition_of
from streams.augmentation import augment_of
from streams.refine.row_size import row_bytes

# Copies made at once; more only take memory.
_MOST_AT_ONCE = 65_536


def augmented(
    clean: pl.DataFrame, family: Family, copies: float, partitions: int, largest_row_bytes: int
) -> pl.DataFrame:
    """Return the rows that augmentation makes of a group's clean rows: wire columns, `record` and `partition`.

    Args:
        clean: the clean rows of the group, as `Verdicts.clean` has them.
        copies: rows to make of each, on average.
        partitions: of raw; a row whose route is unknown goes to partition 0, where it is refused.
        largest_row_bytes: a row with more bytes of text is left out.

    Raises:
        ConfigError: the family has no augmentation.
        RefineError: the augmentation failed. Nothing of the group is committed then, and the worker ends; without the
            setting it goes on.
    """
    columns = {**family.wire, "record": pl.UInt32(), "partition": pl.Int32()}
    if not copies:
        return pl.DataFrame(schema=columns)
    origins = clean.filter(pl.col("augmented_from").is_null())
    wanted = copies_of(origins["example_id"].to_numpy(), copies)
    total = int(wanted.sum())
    if not total:
        return pl.DataFrame(schema=columns)
    # Of each copy: which row it is of, and the how-manieth of that row's it is.
    of_row = np.repeat(np.arange(wanted.size), wanted)
    nth = np.arange(total) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    made = []
    for start in range(0, total, _MOST_AT_ONCE):
        part = slice(start, start + _MOST_AT_ONCE)
        rows = origins[of_row[part]].with_columns(copy=pl.Series(nth[part], dtype=pl.UInt32))
        made.append(_made_of(rows, family))
    frame = identify(pl.concat(made), family).with_columns(partition_of(family, partitions).fill_null(0))
    kept = frame.filter(row_bytes(family) <= largest_row_bytes)
    return kept.select(list(columns)).sort("record", maintain_order=True)


def copies_of(ids: NDArray[np.uint64], mean: float) -> NDArray[np.int64]:
    """Return how many copies to make of the row of each id: `mean` rounded down or up, and `mean` on average."""
    # Bits of the id itself say where the row is routed, so they are mixed first (the finaliser of splitmix64).
    mixed = ids ^ (ids >> np.uint64(30))
    mixed = mixed * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    drawn = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
    return np.where(drawn < mean % 1, int(mean) + 1, int(mean))


def _made_of(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    augment = augment_of(family.name)
    columns = {**family.wire, "record": pl.UInt32()}
    try:
        made = augment(rows).select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    except Exception as error:
        line = str(error).partition("\n")[0]
        raise RefineError(_failed(family, f"{type(error).__name__}: {line}")) from error
    # Taken for an original, a row would be augmented again, and again.
    if made["augmented_from"].null_count() or not made["record"].is_in(rows["record"].implode()).all():
        raise RefineError(_failed(family, "a row does not say what it was made from"))
    return made


def _failed(family: Family, cause: str) -> str:
    return (
        f"augmentation of {family.name} failed ({cause}): report it, and set FEEDMILL_AUGMENT without "
        f"{family.name} to go on"
    )
