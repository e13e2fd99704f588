"""Random draws for augmented scenarios, computed only from the origin's id and the number of the copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.splitmix import nth

Array = npt.NDArray[Any]

# Names of the draws; each factor has its own draw, from EFFECT on.
NAME, RELATION, SETTING, CAPACITY, SUPPORT, SCORE, EFFECT = range(7)


def pick(rows: pl.DataFrame, draw: int, sizes: Array) -> Array:
    """Return an index below each row's size (N,); it differs between the first `size` copies of an origin."""
    first = nth(_unsigned(rows["example_id"]), draw) % sizes.astype(np.uint64)
    index: Array = (first.astype(np.int64) + rows["copy"].to_numpy().astype(np.int64)) % sizes
    return index


def offset(rows: pl.DataFrame, draw: int | Array, most: int, owner: Array | slice = slice(None)) -> Array:
    """Return a step from -most to most for each row, or for each item if `owner` gives the row of each item."""
    copy = nth(_unsigned(rows["example_id"]), _unsigned(rows["copy"]) + np.uint64(1))
    words = nth(copy[owner], draw)
    steps: Array = (words % np.uint64(2 * most + 1)).astype(np.int64) - most
    return steps


def _unsigned(series: pl.Series) -> Array:
    return series.to_numpy().astype(np.uint64)
