"""Move a scenario's numbers within its cell, and compute the numbers that depend on them again."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schema.buffers import lists, lists_of
from schema.scenario.bands import (
    AUTHENTICITY_TARGETS,
    CAPACITY_LEVELS,
    LARGEST_CAPACITY,
    MAX_FACTORS_ALLOWED,
    SUM_TOLERANCE,
    SUPPORT_HEADROOM,
    level_names,
    support_bounds,
    target_names,
)
from streams.augmentation.scenario import draws

Array = npt.NDArray[Any]

_TEXTS = ("context", "request", "response")
# The largest moves: in tenths of points, and in hundredths of the score.
CAPACITY_STEPS, EFFECT_STEPS, SUPPORT_STEPS, SCORE_STEPS = 5, 2, 3, 4
# If a text speaks of points, the row's numbers are not moved; in Rust's regular expressions.
_POINTS = r"(?i)\d\.\d|/ ?10\b|\bout of (?:10|ten)\b|\bpoints?\b"


def moved(rows: pl.DataFrame) -> pl.DataFrame:
    """Return `rows` with other numbers in the same cell; rows that cannot be moved safely keep theirs."""
    bounds, factors = lists(rows["capacity_factors"])
    names, effects = factors.flatten()
    counts = np.diff(bounds)
    owner = np.repeat(np.arange(rows.height), counts)
    points = rows.select("base_capacity", "effective_capacity", "support_needed").to_numpy() * 10
    _, effective, needed = np.rint(points).astype(np.int64).T
    exact_effects = np.asarray(effects)[bounds[0] : bounds[-1]] * 10
    old_effects = np.rint(exact_effects).astype(np.int64)

    # Only rows whose numbers have at most one decimal are moved.
    fine = (np.abs(points - np.rint(points)) > SUM_TOLERANCE).any(axis=1)
    fine |= np.bincount(owner, np.abs(exact_effects - old_effects) > SUM_TOLERANCE, rows.height) > 0
    mentions_points = rows.select(pl.any_horizontal(pl.col(text).str.contains(_POINTS) for text in _TEXTS)).to_series()
    movable = ~fine & ~mentions_points.to_numpy()

    level = rows["capacity_level"].replace_strict(level_names(), range(len(CAPACITY_LEVELS)), return_dtype=pl.Int64)
    target = rows["authenticity_target"].replace_strict(
        target_names(), range(len(AUTHENTICITY_TARGETS)), return_dtype=pl.Int64
    )
    low, high = _LEVEL_TENTHS[level].T
    reached = np.clip(effective + draws.offset(rows, draws.CAPACITY, CAPACITY_STEPS), low, high)
    place = np.arange(len(owner)) - np.repeat(bounds[:-1] - bounds[0], counts)
    step = draws.offset(rows, draws.EFFECT + place, EFFECT_STEPS, owner)
    shifted = np.clip(old_effects + step, -_SCALE_TENTHS, _SCALE_TENTHS)
    new_effects = np.where(np.sign(shifted) == np.sign(old_effects), shifted, np.sign(old_effects))
    # If the moved effects need a base outside the scale, the old effects are kept. If the base is still outside, the
    # whole row is kept.
    keeps_effects = ~_is_base(reached - np.bincount(owner, new_effects, rows.height))
    new_effects = np.where(keeps_effects[owner], old_effects, new_effects)
    started = reached - np.bincount(owner, new_effects, rows.height).astype(np.int64)
    movable &= _is_base(started)
    support_low, support_high = _SUPPORT_TENTHS[target, reached].T
    support = np.clip(
        needed + reached - effective + draws.offset(rows, draws.SUPPORT, SUPPORT_STEPS), support_low, support_high
    )
    score_low, score_high = _SCORE_HUNDREDTHS[target].T
    hundredths = np.rint(rows["authenticity_score"].to_numpy() * 100).astype(np.int64)
    score = np.clip(hundredths + draws.offset(rows, draws.SCORE, SCORE_STEPS), score_low, score_high)

    moves = pl.Series(movable)
    items = pa.StructArray.from_arrays(
        [names.slice(bounds[0], bounds[-1] - bounds[0]), pa.array(new_effects / 10)], names=["name", "effect"]
    )
    columns = {
        "base_capacity": pl.Series(started / 10),
        "effective_capacity": pl.Series(reached / 10),
        "support_needed": pl.Series(support / 10),
        "support_possible": pl.Series((reached + _HEADROOM_TENTHS) / 10),
        "authenticity_score": pl.Series(score / 100),
        "capacity_factors": lists_of(items, counts),
        "calculation_steps": _calculation(started, new_effects, counts),
    }
    return rows.with_columns(
        series.cast(rows.schema[name]).zip_with(moves, rows[name]).alias(name) for name, series in columns.items()
    )


def _calculation(base: Array, effects: Array, counts: Array) -> pl.Series:
    """Return the lines of each row from numbers in tenths: one for each factor ("6.0 - 1.5 = 4.5"), one for support."""
    ends = np.cumsum(counts)
    every = np.insert(effects, ends, _HEADROOM_TENTHS)
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
    return _numerals().gather(tenths + _WRITABLE)


@cache
def _numerals() -> pl.Series:
    return pl.Series([f"{tenths / 10:.1f}" for tenths in range(-_WRITABLE, _WRITABLE + 1)])


def _is_base(tenths: Array) -> Array:
    return (tenths >= 0) & (tenths <= _SCALE_TENTHS)


def _in_steps(low: float, high: float, steps: int) -> tuple[int, int]:
    """Return the smallest and the largest multiple of 1/steps from `low` to `high`, as multiples."""
    return int(np.ceil(low * steps - SUM_TOLERANCE)), int(np.floor(high * steps + SUM_TOLERANCE))


_SCALE_TENTHS, _HEADROOM_TENTHS = round(LARGEST_CAPACITY * 10), round(SUPPORT_HEADROOM * 10)
# The base, all factors' effects, and the headroom.
_WRITABLE = _SCALE_TENTHS + MAX_FACTORS_ALLOWED * _SCALE_TENTHS + _HEADROOM_TENTHS
_LEVEL_TENTHS = np.array([_in_steps(band.low, band.high, 10) for band in CAPACITY_LEVELS])
# The upper bound belongs to the next target, except for the last target.
_SCORE_HUNDREDTHS = np.array([_in_steps(band.low, band.high, 100) for band in AUTHENTICITY_TARGETS])
_SCORE_HUNDREDTHS[:-1, 1] -= 1
# (target, effective capacity in tenths) -> the least and the most support needed.
_SUPPORT_TENTHS = np.array(
    [
        [_in_steps(*support_bounds(name, tenths / 10), 10) for tenths in range(_SCALE_TENTHS + 1)]
        for name in target_names()
    ]
)
