"""The reduction family's coverage axes, cells and quotas.

Generation draws whole traces: 40% of them start at depth 12-15 and 30% at size 160-200. Both shares are counted on
first steps only (every trace contributes its first), through the axes `initial_depth` and `initial_size`.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from schema.axes import Axis, Quota, banded, labelled
from schema.reduction.columns import OUTCOMES

_TENS = range(10, 210, 10)
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


def _low(band: str) -> int:
    return int(band.rstrip("+").partition("-")[0])


def _high(band: str, unbounded: int) -> int:
    return unbounded if band.endswith("+") else int(band.rpartition("-")[2])


def cell_possible(cell: Mapping[str, str]) -> bool:
    """Return whether a term of that size band can have that depth band and a redex that deep.

    A term of depth d has at least d + 1 and at most 2^(d+1) - 1 nodes; a redex takes three more levels-worth of nodes:
    an application, an abstraction and its body below it, so it sits at most d - 2 deep.
    """
    smallest, largest = _low(cell["size"]), _high(cell["size"], 10**9)
    shallowest, deepest = _low(cell["depth_band"]), _high(cell["depth_band"], 64)
    if largest < shallowest + 1 or smallest > 2 ** (deepest + 1) - 1:
        return False
    redex = cell["redex_depth"]
    # The smallest term with a redex at depth r: r nodes above it and (\.0)0, four nodes, depth r + 2.
    return redex == "none" or (deepest >= _low(redex) + 2 and largest >= _low(redex) + 4)
