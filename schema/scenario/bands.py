"""The scenario family's bands: capacity levels, authenticity targets and complexity types, with shares and formulas.

Capacity and support are points out of 10, with one decimal. An authenticity score is 0 to 1, with two decimals. There
are gaps between the bands of capacity on purpose: a capacity in a gap has no level. A person of capacity X can give up
to X + 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Band:
    """One bin of a scenario axis: `low` and `high` are its bounds, `share` its target share of all rows.

    `anchors` are the phrases that describe a capacity in words; each belongs to one level only.
    """

    name: str
    low: float
    high: float
    share: float
    anchors: tuple[str, ...] = ()


# A level includes both bounds.
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
# A target includes its lower bound and not its upper one; the last target includes 1.0.
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
# No share is specified for the types, so all have the same.
TYPE_SHARE = 1 / len(COMPLEXITY_TYPES)

# The largest capacity, and the largest size of an effect, in points.
LARGEST_CAPACITY = 10.0
# Points that a character can give beyond the effective capacity.
SUPPORT_HEADROOM = 2.0
# The most factors of one moment; the names of more factors are not compared with one another.
MAX_FACTORS_ALLOWED = 16
# Capacity and support have one decimal: two numbers that differ by less than half of it are the same.
POINT_TOLERANCE = 0.05
# The rounding error that floating point may add to a sum of a few such numbers.
SUM_TOLERANCE = 1e-6

# (low, high) to add to the effective capacity for the support needed, by target; see `support_bounds`.
_SUPPORT_OFFSETS = {"failed": (4.0, 6.0), "struggling": (1.5, 3.0), "authentic": (-0.5, 1.5), "excellent": (-2.0, -1.0)}
# The least support needed for an excellent answer: a request for less would ask for nothing.
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
    excellent = max(1, capacity - U(1, 2)). A negative result becomes 0.

    Raises:
        KeyError: `target` is not a target.
    """
    low, high = _SUPPORT_OFFSETS[target]
    least = _LEAST_EXCELLENT if target == "excellent" else 0.0
    return max(least, capacity + low), max(least, capacity + high)


def support_ranges(target: pl.Expr, capacity: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return `support_bounds` of each row, as expressions (Float64); null for an unknown target."""
    least = pl.when(target == "excellent").then(_LEAST_EXCELLENT).otherwise(0.0)
    names, offsets = list(_SUPPORT_OFFSETS), list(_SUPPORT_OFFSETS.values())
    low, high = (
        (capacity + target.replace_strict(names, ends, default=None, return_dtype=pl.Float64)).clip(lower_bound=least)
        for ends in zip(*offsets, strict=True)
    )
    return low, high


def level_of(capacity: pl.Expr) -> pl.Expr:
    """Return the name of the level that includes a capacity, or null if the capacity has no level."""
    return pl.coalesce(
        [
            pl.when(capacity.is_between(band.low - SUM_TOLERANCE, band.high + SUM_TOLERANCE)).then(pl.lit(band.name))
            for band in CAPACITY_LEVELS
        ]
    )


def target_of(score: pl.Expr) -> pl.Expr:
    """Return the name of the target that includes a score, or null if the score has no target."""
    last = AUTHENTICITY_TARGETS[-1]
    inside = [
        pl.when((score >= band.low) & (score < band.high)).then(pl.lit(band.name)) for band in AUTHENTICITY_TARGETS
    ]
    return pl.coalesce([*inside, pl.when(score == last.high).then(pl.lit(last.name))])
