"""The reduction family's coverage axes, cells and quotas.

Generation draws whole traces: 40% of them start at depth 12-15 and 30% at size 160-200. The axes `initial_depth` and
`initial_size` measure both shares. They count only the first step of each trace.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import polars as pl

from schema.axes import Axis, Quota, banded, labelled
from schema.family import cell_label
from schema.reduction.columns import OUTCOMES

_TENS = range(10, 210, 10)
# The end of an open band: above every other band, and small enough to be an exponent of 2.
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

# After some hundreds of chunks, a share counted on whole traces differs from its target by less than this.
_SHARE_TOLERANCE = 0.01

QUOTAS = (
    Quota("initial_depth_12_15_share", "share", "initial_depth", ("12", "13", "14", "15"), 0.40, _SHARE_TOLERANCE),
    Quota("initial_size_160_200_share", "share", "initial_size", (*SIZE_BANDS[16:20], "200+"), 0.30, _SHARE_TOLERANCE),
)

# The number of closed terms in each possible cell with fewer than a million of them.
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
    """Return the smallest and the largest number in a band such as "7", "10-19" or "200+"; "+" ends at `unbounded`.

    Raises:
        ValueError: the band does not hold numbers.
    """
    low, _, high = band.rstrip("+").partition("-")
    return int(low), unbounded if band.endswith("+") else int(high or low)


def cell_possible(cell: Mapping[str, str]) -> bool:
    r"""Return whether a closed term can have this cell's size, depth and redex depth.

    Every term of a trace is closed. A closed term of depth d with its redex r edges deep (r <= d - 2) has:

    - without a redex: d + 1 to 2^d nodes, d >= 1. It begins with an abstraction, because its head is bound.
    - r >= 1: d + 2 to 3 * 2^(d-1) - 2^(d-2-r) nodes.
    - r = 0: at least d + 3 nodes, because both sides of the redex are closed; the same maximum.

    Minimum: the longest path has d + 1 nodes, and the redex has one more beside it, as in `\.\.(\.0)0`.

    Maximum: a full tree, possible where an index is bound, has F(d) = 2^(d+1) - 1 nodes. A closed term has at most
    C(d) = max(1 + F(d-1), 1 + 2 C(d-1)) = 3 * 2^(d-1) - 1. With its redex at r it has at most
    C(d, 0) = 2 + F(d-2) + C(d-1) = 5 * 2^(d-2), and C(d, r) = 1 + C(d-1, r-1) + C(d-1) if the redex is in the function;
    an abstraction around the redex leaves fewer.

    Every size between occurs. A test compares this with the counts of all terms up to 249 nodes and depth 20.
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
    """Return the most rows to request for a cell: a quarter of its terms, so that most of the drawn terms are new."""
    terms = FEW_TERMS.get(cell_label(cell))
    return sys.maxsize if terms is None else (terms + 3) // 4
