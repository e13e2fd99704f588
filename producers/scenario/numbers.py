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
from schema.scenario.bands import AUTHENTICITY_TARGETS, COMPLEXITY_TYPES
from schema.scenario.decimals import (
    HEADROOM_TENTHS,
    LEVEL_TENTHS,
    SCALE_TENTHS,
    SCORE_HUNDREDTHS,
    SUPPORT_TENTHS,
    calculation_lines,
)

Array = npt.NDArray[Any]

_TARGETS, _TYPES = len(AUTHENTICITY_TARGETS), len(COMPLEXITY_TYPES)
MAX_FACTORS_COMPOSED = 4
_LEAST_EFFECT, _MOST_EFFECT = 2, 25
_LEAST_CAPACITY = 5


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
        return self.effective + HEADROOM_TENTHS


def numbers_of(cells: Array, draws: Draws) -> Numbers:
    """Draw numbers within the bins of each row's cell; `cells` are indices, (N,), row-major over `FAMILY.cells()`."""
    level, target, kind = cells // (_TARGETS * _TYPES), cells // _TYPES % _TARGETS, cells % _TYPES
    effective = draws.between("effective", *LEVEL_TENTHS[level].T)
    wanted = draws.between("factors", 1, MAX_FACTORS_COMPOSED)
    # The lower the capacity level, the more factors are negative.
    giving = np.zeros_like(wanted)
    for place in range(MAX_FACTORS_COMPOSED):
        giving += (place < wanted) & (draws.below(f"gives {place}", 10) < level + 2)
    room = effective - _LEAST_CAPACITY
    gifts = np.minimum(giving, room // _LEAST_EFFECT)
    given = _effects("gift", gifts, room, draws)
    room = SCALE_TENTHS - effective + given.sum(1)
    drains = np.maximum(np.minimum(wanted - giving, room // _LEAST_EFFECT), gifts == 0)
    taken = _effects("drain", drains, room, draws)
    effects = np.zeros((len(level), MAX_FACTORS_COMPOSED), dtype=np.int64)
    for place in range(MAX_FACTORS_COMPOSED):
        later = np.clip(place - drains, 0, MAX_FACTORS_COMPOSED - 1)
        given_here = np.where(place < drains + gifts, given[np.arange(len(level)), later], 0)
        effects[:, place] = np.where(place < drains, -taken[:, place], given_here)
    return Numbers(
        level=level,
        target=target,
        kind=kind,
        base=effective - effects.sum(1),
        effective=effective,
        effects=effects,
        drains=drains,
        gifts=gifts,
        needed=draws.between("needed", *SUPPORT_TENTHS[target, effective].T),
        score=draws.between("score", *SCORE_HUNDREDTHS[target].T),
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
    """Return `calculation_steps` (`schema.scenario.decimals.calculation_lines`)."""
    effects = numbers.effects[numbers.effects != 0]
    return calculation_lines(numbers.base, effects, numbers.drains + numbers.gifts)
