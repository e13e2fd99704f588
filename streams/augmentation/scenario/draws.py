"""Random draws for augmented scenarios, computed only from the origin's id and the number of the copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Array = npt.NDArray[Any]

# Names of the draws; each factor has its own draw, from EFFECT on.
NAME, RELATION, SETTING, CAPACITY, SUPPORT, SCORE, EFFECT = range(7)

# SplitMix64 (Steele, Lea, Flood 2014): the increment and the two multipliers of its finalizer.
_GOLDEN, _MIX_1, _MIX_2 = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def pick(rows: pl.DataFrame, draw: int, sizes: Array) -> Array:
    """Return an index below each row's size (N,); it differs between the first `size` copies of an origin."""
    first = _mix(_unsigned(rows["example_id"]) + _GOLDEN * np.array([draw], dtype=np.uint64)) % sizes.astype(np.uint64)
    index: Array = (first.astype(np.int64) + rows["copy"].to_numpy().astype(np.int64)) % sizes
    return index


def offset(rows: pl.DataFrame, draw: int | Array, most: int, owner: Array | slice = slice(None)) -> Array:
    """Return a step from -most to most for each row, or for each item if `owner` gives the row of each item."""
    copy = _mix(_unsigned(rows["example_id"]) + _GOLDEN * (_unsigned(rows["copy"]) + np.uint64(1)))
    words = _mix(copy[owner] + _GOLDEN * np.asarray(draw, dtype=np.uint64))
    steps: Array = (words % np.uint64(2 * most + 1)).astype(np.int64) - most
    return steps


def _unsigned(series: pl.Series) -> Array:
    return series.to_numpy().astype(np.uint64)


def _mix(words: Array) -> Array:
    words = (words ^ (words >> np.uint64(30))) * _MIX_1
    words = (words ^ (words >> np.uint64(27))) * _MIX_2
    mixed: Array = words ^ (words >> np.uint64(31))
    return mixed
