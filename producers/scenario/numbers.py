"""Draw the numbers of scenarios (capacities, factors, support, score) and write their calculation steps.

Points are whole tenths and scores whole hundredths until they are written, so every sum is exact. Factors that reduce
the capacity come before factors that raise it. The running sum stays between 0.5 and 10 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from producers.scenario.draws import Draws
from schema.buffers import lists_of
from schema.scenario.bands import (
    AUTHENTICITY_TARGETS,
    CAPACITY_LEVELS,
    COMPLEXITY_TYPES,
    SUPPORT_HEADROOM,
    support_bounds,
)

Array = npt.NDArray[Any]

_TARGETS, _TYPES = len(AUTHENTICITY_TARGETS), len(COMPLEXITY_TYPES)
MAX_FACTORS_COMPOSED = 4
_LEAST_EFFECT, _MOST_EFFECT = 2, 25
_LEAST_CAPACITY, _MOST_CAPACITY = 5, 100
_HEADROOM_TENTHS = round(SUPPORT_HEADROOM * 10)


def _tenths(points: float) -> int:
    return round(points * 10)


_LEVEL_LOW = np.array([_tenths(band.low) for band in CAPACITY_LEVELS])
_LEVEL_HIGH = np.array([_tenths(band.high) for band in CAPACITY_LEVELS])
_SCORE_LOW = np.array([round(band.low * 100) for band in AUTHENTICITY_TARGETS])
# The upper bound belongs to the next target, except for the last target.
_SCORE_HIGH = np.array([round(band.high * 100) - 1 for band in AUTHENTICITY_TARGETS])
_SCORE_HIGH[-1] += 1
# [target][capacity in tenths]: the least and the most support needed, in tenths.
_SUPPORT = np.array(
    [
        [
            [_tenths(bound) for bound in support_bounds(band.name, capacity / 10)]
            for capacity in range(_MOST_CAPACITY + 1)
        ]
        for band in AUTHENTICITY_TARGETS
    ]
)
# The text of every number that a calculation line can hold.
_WRITTEN = pl.Series([f"{tenths / 10:.1f}" for tenths in range(_MOST_CAPACITY + _HEADROOM_TENTHS + 1)])


@dataclass(frozen=True, eq=False)
class Numbers:
    """The numbers of N rows: points in tenths, scores in hundredths.

    Attributes:
        level, target, kind: (N,) indices of the cell's bins.
        base, effective, needed: (N,) tenths of points.
        effects: (N, 4) signed tenths: a row's negative effects, then its positive ones, then zeros.
        drains, gifts: (N,) the number of negative and of positive effects.
        score: (N,) hundredths.
    """

    level: Array
    target: Array
    kind: Array
    base: Array
    effective: Array
    effects: Array
    drains: Array
    gifts: Array
    needed: Array
    score: Array

    @property
    def possible(self) -> Array:
        """The support that can be given, (N,) tenths: effective capacity plus headroom."""
        return self.effective + _HEADROOM_TENTHS


def numbers_of(cells: Array, draws: Draws) -> Numbers:
    """Draw numbers within the bins of each row's cell; `cells` are indices, (N,), row-major over `FAMILY.cells()`."""
    level, target, kind = cells // (_TARGETS * _TYPES), cells // _TYPES % _TARGETS, cells % _TYPES
    effective = draws.between("effective", _LEVEL_LOW[level], _LEVEL_HIGH[level])
    wanted = draws.between("factors", 1, MAX_FACTORS_COMPOSED)
    # The lower the capacity level, the more factors are negative.
    giving = np.zeros_like(wanted)
    for place in range(MAX_FACTORS_COMPOSED):
        giving += (place < wanted) & (draws.below(f"gives {place}", 10) < level + 2)
    room = effective - _LEAST_CAPACITY
    gifts = np.minimum(giving, room // _LEAST_EFFECT)
    given = _effects("gift", gifts, room, draws)
    room = _MOST_CAPACITY - effective + given.sum(1)
    drains = np.maximum(np.minimum(wanted - giving, room // _LEAST_EFFECT), gifts == 0)
    taken = _effects("drain", drains, room, draws)
    effects = np.zeros((len(level), MAX_FACTORS_COMPOSED), dtype=np.int64)
    for place in range(MAX_FACTORS_COMPOSED):
        later = np.clip(place - drains, 0, MAX_FACTORS_COMPOSED - 1)
        given_here = np.where(place < drains + gifts, given[np.arange(len(level)), later], 0)
        effects[:, place] = np.where(place < drains, -taken[:, place], given_here)
    bounds = _SUPPORT[target, effective]
    return Numbers(
        level=level,
        target=target,
        kind=kind,
        base=effective - effects.sum(1),
        effective=effective,
        effects=effects,
        drains=drains,
        gifts=gifts,
        needed=draws.between("needed", bounds[:, 0], bounds[:, 1]),
        score=draws.between("score", _SCORE_LOW[target], _SCORE_HIGH[target]),
    )


def _effects(field: str, counts: Array, room: Array, draws: Draws) -> Array:
    """Return (N, 4) sizes of effects that sum to at most `room`; a row has `counts` sizes, then zeros."""
    sizes = np.zeros((len(counts), MAX_FACTORS_COMPOSED), dtype=np.int64)
    left = room.copy()
    for place in range(MAX_FACTORS_COMPOSED):
        wanted = place < counts
        # Leave at least the smallest effect for each later factor.
        most = np.minimum(left - _LEAST_EFFECT * np.maximum(counts - place - 1, 0), _MOST_EFFECT)
        size = draws.between(f"{field} {place}", _LEAST_EFFECT, np.maximum(most, _LEAST_EFFECT))
        sizes[:, place] = np.where(wanted, size, 0)
        left -= sizes[:, place]
    return sizes


def points(tenths: Array) -> pl.Series:
    """Return tenths as points, Float64; each equals the double that its decimal text parses to."""
    return pl.Series(tenths / 10)


def factor_list(names: pl.Series, numbers: Numbers) -> pl.Series:
    """Return `capacity_factors`, one list per row; `names` holds the names of all rows' factors, row by row."""
    effects = numbers.effects[numbers.effects != 0] / 10
    factors = pl.DataFrame({"name": names, "effect": effects}).to_struct()
    return lists_of(factors, numbers.drains + numbers.gifts)


def calculation(numbers: Numbers) -> pl.Series:
    """Return `calculation_steps`: one line for each factor ("6.0 - 1.5 = 4.5"), then the line of the headroom."""
    rows = len(numbers.base)
    effects = np.column_stack([numbers.effects, np.full(rows, _HEADROOM_TENTHS)])
    after = numbers.base[:, None] + np.cumsum(effects, axis=1)
    before = after - effects
    used = effects != 0
    lines = pl.select(
        pl.concat_str(
            _WRITTEN.gather(before[used]),
            pl.Series([" + ", " - "]).gather((effects[used] < 0).astype(np.uint32)),
            _WRITTEN.gather(np.abs(effects[used])),
            pl.lit(" = "),
            _WRITTEN.gather(after[used]),
        )
    ).to_series()
    return lists_of(lines, numbers.drains + numbers.gifts + 1)
