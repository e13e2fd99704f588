"""The reduction family's coverage axes, cells and quotas.

Generation draws whole traces: 40% of them start at depth 12-15 and 30% at size 160-200. Both shares are counted on
first steps only (every trace contributes its first), through the axes `initial_depth` and `initial_size`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import polars as pl

from schema.axes import Axis, Quota, banded, labelled
from schema.family import cell_label
from schema.reduction.columns import OUTCOMES

_TENS = range(10, 210, 10)
# Ends a band that has no end: beyond every other, and small enough to raise 2 to its power.
_UNBOUNDED = 1000
SIZE_BANDS = ("1-9", *(f"{low}-{low + 9}" for low in range(10, 200, 10)), "200+")
DEPTHS = (*(str(depth) for depth in range(20)), "20+")
DEPTH_BANDS = ("0-3", "4-7", "8-11", "12-15", "16+")
REDEX_DEPTH_BANDS = ("none", "0", "1-2", "3-4", "5-8", "9+")
GROWTH_BANDS = ("<0.25", "0.25-0.5", "0.5-0.9", "0.9-1.1", "1.1-2", "2-4", "4+")
POSITIONS = ("first", "middle", "last")

_last_step = pl.col("steps_total") - (pl.col("outcome") != "normal_form").cast(pl.Int32)
_position = (
    pl.when(pl.col("step_k") == 0)
    .then(pl.lit(0, dtype=pl.UInt16))
    .when(pl.col("step_k") >= _last_step)
    .then(pl.lit(2, dtype=pl.UInt16))
    .otherwise(pl.lit(1, dtype=pl.UInt16))
)


def _on_first_step(axis: Axis) -> Axis:
    return Axis(axis.name, axis.bins, pl.when(pl.col("step_k") == 0).then(axis.code))


AXES = (
    banded("size", pl.col("size"), _TENS, SIZE_BANDS),
    banded("depth", pl.col("depth"), range(1, 21), DEPTHS),
    banded("depth_band", pl.col("depth"), (4, 8, 12, 16), DEPTH_BANDS),
    banded("redex_depth", pl.col("redex_depth").fill_null(-1), (0, 1, 3, 5, 9), REDEX_DEPTH_BANDS),
    Axis("position", POSITIONS, _position),
    banded("growth", pl.col("growth"), (0.25, 0.5, 0.9, 1.1, 2, 4), GROWTH_BANDS),
    banded("leading_abstractions", pl.col("found_leading"), range(1, 5), ("0", "1", "2", "3", "4+")),
    labelled("outcome", pl.col("outcome"), OUTCOMES),
    _on_first_step(banded("initial_size", pl.col("initial_size"), _TENS, SIZE_BANDS)),
    _on_first_step(banded("initial_depth", pl.col("initial_depth"), range(1, 21), DEPTHS)),
)

CELL_AXES = ("size", "depth_band", "redex_depth")

# A share counted on whole traces sits within this of its target once some hundreds of chunks are in.
_SHARE_TOLERANCE = 0.01

QUOTAS = (
    Quota("initial_depth_12_15_share", "share", "initial_depth", ("12", "13", "14", "15"), 0.40, _SHARE_TOLERANCE),
    Quota("initial_size_160_200_share", "share", "initial_size", (*SIZE_BANDS[16:20], "200+"), 0.30, _SHARE_TOLERANCE),
)

# How many closed terms there are in each possible cell that has fewer than a million.
FEW_TERMS = {
    "1-9|0-3|none": 18,
    "1-9|0-3|0": 19,
    "1-9|0-3|1-2": 11,
    "1-9|4-7|none": 1039,
    "1-9|4-7|0": 185,
    "1-9|4-7|1-2": 809,
    "1-9|4-7|3-4": 503,
    "1-9|4-7|5-8": 30,
    "1-9|8-11|none": 8,
    "10-19|0-3|0": 1,
    "10-19|0-3|1-2": 2,
    "10-19|16+|none": 102517,
    "10-19|16+|0": 30,
    "10-19|16+|1-2": 8307,
    "10-19|16+|3-4": 18589,
    "10-19|16+|5-8": 61752,
    "10-19|16+|9+": 115662,
    "160-169|4-7|0": 1,
    "180-189|4-7|1-2": 105384,
    "190-199|4-7|3-4": 1,
    "190-199|4-7|5-8": 32,
}


def band_range(band: str, unbounded: int) -> tuple[int, int]:
    """Return the smallest and the largest number in a band such as "7", "10-19" or "200+"; `unbounded` ends the last.

    Raises:
        ValueError: the band is none of numbers.
    """
    low, _, high = band.rstrip("+").partition("-")
    return int(low), unbounded if band.endswith("+") else int(high or low)


def cell_possible(cell: Mapping[str, str]) -> bool:
    r"""Return whether a closed term of that size band can have that depth band and a redex that deep.

    Every term of a trace is closed, and a closed term of depth d has, with its redex r edges deep, r <= d - 2:

    - normal: d + 1 to 2^d nodes, d >= 1. It begins with an abstraction, for its head is bound.
    - r >= 1: d + 2 to 3 * 2^(d-1) - 2^(d-2-r) nodes; r = 0: one more at least, for both sides of the redex are closed.

    The longest path has d + 1 nodes and the redex one more beside it: `\.\.(\.0)0`. The most nodes that a closed term
    has are C(d) = max(1 + F(d-1), 1 + 2 C(d-1)) = 3 * 2^(d-1) - 1, with F(d) = 2^(d+1) - 1 for those of a full tree,
    where an index is bound. With its redex at r it has C(d, 0) = 2 + F(d-2) + C(d-1) = 5 * 2^(d-2), and
    C(d, r) = 1 + C(d-1, r-1) + C(d-1), the redex being in the function; an abstraction around it leaves fewer. Every
    size between is taken: a test compares this with the counts of all terms up to 249 nodes and depth 20.
    """
    smallest, largest = band_range(cell["size"], _UNBOUNDED)
    shallowest, deepest = band_range(cell["depth_band"], _UNBOUNDED)
    if cell["redex_depth"] == "none":
        lowest = max(shallowest, 1)
        return lowest <= deepest and largest >= lowest + 1 and smallest <= 2**deepest
    nearest, farthest = band_range(cell["redex_depth"], _UNBOUNDED)
    lowest = max(shallowest, nearest + 2)
    if lowest > deepest:
        return False
    farthest = min(farthest, deepest - 2)
    fewest = lowest + 2 if farthest > 0 else lowest + 3
    return largest >= fewest and smallest <= 3 * 2 ** (deepest - 1) - 2 ** (deepest - 2 - farthest)


def cell_room(cell: Mapping[str, str]) -> int:
    """Return how many rows a cell can be asked for: a quarter of its terms, so that most of those drawn are new."""
    terms = FEW_TERMS.get(cell_label(cell))
    return sys.maxsize if terms is None else (terms + 3) // 4
