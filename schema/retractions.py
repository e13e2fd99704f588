"""The records of `<namespace>.<family>.retractions`: rows of clean that feeds and replays leave out from now on.

A record is a micro-batch with one entry for each row of clean. An entry has the row's `example_id`, its place in clean,
and the bins that coverage counts it in. So a reader of entries never has to look the row up. Two entries of one row
count as one. A row is also left out if its origin (`augmented_from`) is retracted, even without an entry of its own.

The topic has one partition, and its records are kept for ever. So one end offset says which retractions a reader knows.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.family import CELL_AXIS, Family, axis_codes, cell_codes, cell_label

VERSION = 1

# The reason code of rows that the refine stage refuses because they, or their origins, are retracted.
RETRACTED = "retracted"

COLUMNS: dict[str, pl.DataType] = {
    "example_id": pl.UInt64(),
    "augmented_from": pl.UInt64(),
    "split": pl.String(),
    # The place in clean.
    "partition": pl.Int32(),
    "offset": pl.Int64(),
    "coverage": pl.List(pl.Struct({"axis": pl.String(), "bin": pl.String()})),
    "reason": pl.String(),
    # The filter by which somebody asked for the retraction, and the time.
    "requested": pl.String(),
    "time": pl.Datetime("ms", "UTC"),
}
# Entries with the same values of these columns are one retraction.
KEY = ("example_id", "partition", "offset")

Ids = NDArray[np.uint64]
NO_IDS: Ids = np.empty(0, dtype=np.uint64)


def sorted_ids(entries: pl.DataFrame) -> Ids:
    """Return the different example ids of `entries`, ascending."""
    ids: Ids = np.unique(entries["example_id"].drop_nulls().to_numpy())
    return ids


def is_retracted(rows: pl.DataFrame, ids: Ids) -> pl.Series:
    """Return whether each row or its origin is retracted (Boolean, never null).

    Args:
        rows: with `example_id` and `augmented_from`.
        ids: the result of `sorted_ids`.

    >>> rows = pl.DataFrame({"example_id": [1, 2, 3], "augmented_from": [None, None, 1]}, schema_overrides=WIRE_IDS)
    >>> is_retracted(rows, np.array([1], dtype=np.uint64)).to_list()
    [True, False, True]
    """
    held = _holds(ids, rows["example_id"]) | _holds(ids, rows["augmented_from"])
    return pl.Series("retracted", held, dtype=pl.Boolean)


# The columns that `is_retracted` reads.
WIRE_IDS: dict[str, pl.DataType] = {name: COLUMNS[name] for name in ("example_id", "augmented_from")}


def _holds(ids: Ids, column: pl.Series) -> NDArray[np.bool_]:
    if not ids.size:
        return np.zeros(column.len(), dtype=np.bool_)
    values = column.fill_null(0).to_numpy()
    at = np.minimum(np.searchsorted(ids, values), ids.size - 1)
    found: NDArray[np.bool_] = (ids[at] == values) & column.is_not_null().to_numpy()
    return found


def coverage_of(rows: pl.DataFrame, family: Family) -> pl.Series:
    """Return the bins and the cell in which coverage counts each row: (N,) of the type of `COLUMNS["coverage"]`.

    `rows` are rows of clean with the family's wire columns.
    """
    codes = axis_codes(family.derive(rows.with_columns(record=pl.lit(0, dtype=pl.UInt32))), family.axes)
    numbers = {axis.name: codes[axis.name] for axis in family.axes} | {CELL_AXIS: pl.Series(cell_codes(codes, family))}
    names = {axis.name: list(axis.bins) for axis in family.axes}
    names[CELL_AXIS] = [cell_label(cell) for cell in family.cells()]
    counted = pl.DataFrame(
        {
            name: pl.select(
                pl.when(code >= 0).then(
                    pl.struct(axis=pl.lit(name), bin=pl.Series(names[name], dtype=pl.String).gather(code.clip(0)))
                )
            ).to_series()
            for name, code in numbers.items()
        }
    )
    return counted.select(coverage=pl.concat_list(pl.all()).list.drop_nulls().cast(COLUMNS["coverage"]))["coverage"]
