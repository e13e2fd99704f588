"""A scenario's numbers as whole tenths of points and whole hundredths of the score, in which every sum is exact.

The tables have the numbers that each bin allows, and `calculation_lines` writes the calculation of a row. The number
that is stored is the whole number divided by 10 or 100, which is the double that its decimal text parses to.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.buffers import lists_of
from schema.scenario.bands import (
    AUTHENTICITY_TARGETS,
    CAPACITY_LEVELS,
    LARGEST_CAPACITY,
    MAX_FACTORS_ALLOWED,
    SUM_TOLERANCE,
    SUPPORT_HEADROOM,
    support_bounds,
    target_names,
)

Array = npt.NDArray[Any]

SCALE_TENTHS, HEADROOM_TENTHS = round(LARGEST_CAPACITY * 10), round(SUPPORT_HEADROOM * 10)
# The largest sum of a base, the effects of all factors, and the headroom.
_LARGEST_SUM = SCALE_TENTHS + MAX_FACTORS_ALLOWED * SCALE_TENTHS + HEADROOM_TENTHS


def _multiples(low: float, high: float, steps: int) -> tuple[int, int]:
    """Return the smallest and the largest multiple of 1/steps from `low` to `high`, as multiples."""
    return int(np.ceil(low * steps - SUM_TOLERANCE)), int(np.floor(high * steps + SUM_TOLERANCE))


# (4, 2): the least and the greatest effective capacity of each level, in tenths.
LEVEL_TENTHS = np.array([_multiples(band.low, band.high, 10) for band in CAPACITY_LEVELS])
# (4, 2): the least and the greatest score of each target, in hundredths. The upper bound belongs to the next target,
# except for the last target.
SCORE_HUNDREDTHS = np.array([_multiples(band.low, band.high, 100) for band in AUTHENTICITY_TARGETS])
SCORE_HUNDREDTHS[:-1, 1] -= 1
# (4, SCALE_TENTHS + 1, 2): the least and the most support needed, by target and effective capacity, in tenths.
SUPPORT_TENTHS = np.array(
    [
        [_multiples(*support_bounds(name, tenths / 10), 10) for tenths in range(SCALE_TENTHS + 1)]
        for name in target_names()
    ]
)


def calculation_lines(base: Array, effects: Array, counts: Array) -> pl.Series:
    """Return `calculation_steps`: a line for each factor ("6.0 - 1.5 = 4.5"), then the line of the headroom.

    Args:
        base: (N,) base capacities in tenths.
        effects: (F,) the signed effects of all rows' factors in tenths, row after row; none is 0.
        counts: (N,) the number of factors of each row.
    """
    every = np.insert(effects, np.cumsum(counts), HEADROOM_TENTHS)
    running = np.cumsum(every)
    lengths = counts + 1
    before_row = np.repeat(np.concatenate([[0], running[np.cumsum(lengths)[:-1] - 1]]) if len(base) else [], lengths)
    after = np.repeat(base, lengths) + running - before_row.astype(np.int64)
    lines = pl.select(
        pl.concat_str(
            _written(after - every),
            pl.Series([" + ", " - "]).gather((every < 0).astype(np.int64)),
            _written(np.abs(every)),
            pl.lit(" = "),
            _written(after),
        )
    ).to_series()
    return lists_of(lines, lengths)


def _written(tenths: Array) -> pl.Series:
    """Return numbers in tenths as text with one decimal."""
    return _numerals().gather(tenths + _LARGEST_SUM)


@cache
def _numerals() -> pl.Series:
    return pl.Series([f"{tenths / 10:.1f}" for tenths in range(-_LARGEST_SUM, _LARGEST_SUM + 1)])
