"""The scenario family's bands: what a level, a target and a type are, how they are shared out, and what they imply.

Capacity and support are points out of 10, to one decimal; an authenticity score is 0 to 1, to two. Bands of capacity
have space between them on purpose: what lies there belongs to no level. A person of capacity X can give up to X + 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Band:
    """One bin of a scenario axis: `low` and `high` are its bounds, `share` its target share of all rows.

    `anchors` are the phrases that describe a capacity in words; each stands for one level alone.
    """

    name: str
    low: float
    high: float
    share: float
    anchors: tuple[str, ...] = ()


# Both bounds belong to the level.
CAPACITY_LEVELS = (
    Band(
        "crisis",
        0.5,
        1.5,
        0.15,
        ("barely holding on", "nothing left to give", "hour by hour", "past every limit"),
    ),
    Band("low", 2.0, 4.0, 0.25, ("running on fumes", "worn thin", "stretched and short of sleep", "close to empty")),
    Band("medium", 4.5, 6.5, 0.35, ("managing, with care", "steady but tired", "enough for today", "halfway full")),
    Band("high", 7.0, 9.5, 0.25, ("rested and clear", "room to spare", "steady and strong", "with hands free")),
)
# The lower bound belongs to the target; the upper to the next, but for the last, which holds 1.0.
AUTHENTICITY_TARGETS = (
    Band("failed", 0.2, 0.4, 0.15),
    Band("struggling", 0.4, 0.6, 0.20),
    Band("authentic", 0.6, 0.8, 0.35),
    Band("excellent", 0.8, 1.0, 0.30),
)
COMPLEXITY_TYPES = (
    "baseline",
    "people_pleasing",
    "misjudgment_over",
    "misjudgment_under",
    "defensive_lashing",
    "emergency_override",
    "cultural_indirect",
    "mixed_emotions",
)
# No share is asked of the types, so they are kept even.
TYPE_SHARE = 1 / len(COMPLEXITY_TYPES)

# Capacities are 0 to this; an effect takes or gives no more than all of it.
LARGEST_CAPACITY = 10.0
# Points that a character can give beyond the effective capacity.
SUPPORT_HEADROOM = 2.0
# What one moment is reckoned from; names of more are not compared with one another.
MAX_FACTORS_ALLOWED = 16
# Capacity and support are written to one decimal: two that differ by less than half of it are the same number.
POINT_TOLERANCE = 0.05
# What floating point may add to a sum of a few such numbers.
SUM_TOLERANCE = 1e-6

# (low, high) that is added to the effective capacity to give the support needed, by target; see `support_bounds`.
_SUPPORT_OFFSETS = {"failed": (4.0, 6.0), "struggling": (1.5, 3.0), "authentic": (-0.5, 1.5), "excellent": (-2.0, -1.0)}
# An excellent answer is asked for something: at least this much.
_LEAST_EXCELLENT = 1.0


def level_names() -> tuple[str, ...]:
    """Return the names of the capacity levels, lowest first."""
    return tuple(band.name for band in CAPACITY_LEVELS)


def target_names() -> tuple[str, ...]:
    """Return the names of the authenticity targets, lowest first."""
    return tuple(band.name for band in AUTHENTICITY_TARGETS)


def support_bounds(target: str, capacity: float) -> tuple[float, float]:
    """Return the least and the most support needed for a target, in points, at an effective capacity.

    failed = capacity + U(4, 6); struggling = capacity + U(1.5, 3); authentic = capacity + U(-0.5, 1.5);
    excellent = max(1, capacity - U(1, 2)); none is negative.

    Raises:
        KeyError: there is no such target.
    """
    low, high = _SUPPORT_OFFSETS[target]
    least = _LEAST_EXCELLENT if target == "excellent" else 0.0
    return max(least, capacity + low), max(least, capacity + high)


def support_ranges(target: pl.Expr, capacity: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return `support_bounds` of each row, as expressions (Float64); null where there is no such target."""
    least = pl.when(target == "excellent").then(_LEAST_EXCELLENT).otherwise(0.0)
    names, offsets = list(_SUPPORT_OFFSETS), list(_SUPPORT_OFFSETS.values())
    low, high = (
        (capacity + target.replace_strict(names, ends, default=None, return_dtype=pl.Float64)).clip(lower_bound=least)
        for ends in zip(*offsets, strict=True)
    )
    return low, high


def level_of(capacity: pl.Expr) -> pl.Expr:
    """Return the name of the level that holds a capacity, or null where none does."""
    return pl.coalesce(
        [
            pl.when(capacity.is_between(band.low - SUM_TOLERANCE, band.high + SUM_TOLERANCE)).then(pl.lit(band.name))
            for band in CAPACITY_LEVELS
        ]
    )


def target_of(score: pl.Expr) -> pl.Expr:
    """Return the name of the target that holds a score, or null where none does."""
    last = AUTHENTICITY_TARGETS[-1]
    inside = [
        pl.when((score >= band.low) & (score < band.high)).then(pl.lit(band.name)) for band in AUTHENTICITY_TARGETS
    ]
    return pl.coalesce([*inside, pl.when(score == last.high).then(pl.lit(last.name))])
