"""The last refine step: make augmented rows from clean rows and send them to raw.

In raw they are refined like all other rows, except that they are never augmented again. The number of copies depends
on the row's id only, so refining a group again after a failure makes the same rows.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.errors import RefineError
from schema.family import Family, identify, partition_of
from schema.splitmix import mix
from streams.augmentation import augment_of
from streams.refine.row_size import row_bytes

# Copies made at once; larger steps only take more memory.
_MOST_AT_ONCE = 65_536


def augmented(
    clean: pl.DataFrame, family: Family, copies: float, partitions: int, largest_row_bytes: int
) -> pl.DataFrame:
    """Return augmented rows of a group's clean rows: wire columns, `record` and `partition`.

    Args:
        clean: the clean rows of the group, in the form of `Verdicts.clean`.
        copies: rows to make of each clean row, on average.
        partitions: the number of raw partitions; a row whose route is unknown goes to partition 0, which refuses it.
        largest_row_bytes: rows with more bytes of text are left out.

    Raises:
        ConfigError: the family has no augmentation.
        RefineError: the augmentation failed. Nothing of the group is committed, and the worker ends.
    """
    columns = {**family.wire, "record": pl.UInt32(), "partition": pl.Int32()}
    if not copies:
        return pl.DataFrame(schema=columns)
    origins = clean.filter(pl.col("augmented_from").is_null())
    wanted = copies_of(origins["example_id"].to_numpy(), copies)
    total = int(wanted.sum())
    if not total:
        return pl.DataFrame(schema=columns)
    # For each copy: the index of its original, and its number among the copies of that original.
    of_row = np.repeat(np.arange(wanted.size), wanted)
    nth = np.arange(total) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    parts = []
    for start in range(0, total, _MOST_AT_ONCE):
        part = slice(start, start + _MOST_AT_ONCE)
        rows = origins[of_row[part]].with_columns(copy=pl.Series(nth[part], dtype=pl.UInt32))
        parts.append(_made_of(rows, family))
    frame = identify(pl.concat(parts), family).with_columns(partition_of(family, partitions).fill_null(0))
    kept = frame.filter(row_bytes(family) <= largest_row_bytes)
    return kept.select(list(columns)).sort("record", maintain_order=True)


def copies_of(ids: NDArray[np.uint64], mean: float) -> NDArray[np.int64]:
    """Return how many copies to make for each id: `mean` rounded down or up, and `mean` on average."""
    # The id's own bits also decide the row's route, so they are mixed first.
    drawn = (mix(ids) >> np.uint64(11)).astype(np.float64) / 2**53
    return np.where(drawn < mean % 1, int(mean) + 1, int(mean))


def _made_of(rows: pl.DataFrame, family: Family) -> pl.DataFrame:
    augment = augment_of(family)
    columns = {**family.wire, "record": pl.UInt32()}
    try:
        copies = augment(rows).select(pl.col(name).cast(dtype) for name, dtype in columns.items())
    except MemoryError:
        raise
    except Exception as error:
        line = str(error).partition("\n")[0]
        raise RefineError(_failed(family, f"{type(error).__name__}: {line}")) from error
    # A copy without `augmented_from` would count as an original and be augmented again without end.
    if copies["augmented_from"].null_count() or not copies["record"].is_in(rows["record"].implode()).all():
        raise RefineError(_failed(family, "a row has no valid augmented_from or record"))
    return copies


def _failed(family: Family, cause: str) -> str:
    return (
        f"augmentation of {family.name} failed ({cause}): report it, and remove {family.name} from FEEDMILL_AUGMENT "
        "to go on"
    )
