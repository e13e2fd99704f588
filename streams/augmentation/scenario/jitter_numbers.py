"""Move a scenario's numbers within its cell, and compute the numbers that depend on them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from schema.buffers import lists, lists_of
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, SUM_TOLERANCE, level_names, target_names
from schema.scenario.decimals import (
    HEADROOM_TENTHS,
    LEVEL_TENTHS,
    SCALE_TENTHS,
    SCORE_HUNDREDTHS,
    SUPPORT_TENTHS,
    calculation_lines,
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
    low, high = LEVEL_TENTHS[level].T
    reached = np.clip(effective + draws.offset(rows, draws.CAPACITY, CAPACITY_STEPS), low, high)
    place = np.arange(len(owner)) - np.repeat(bounds[:-1] - bounds[0], counts)
    step = draws.offset(rows, draws.EFFECT + place, EFFECT_STEPS, owner)
    shifted = np.clip(old_effects + step, -SCALE_TENTHS, SCALE_TENTHS)
    new_effects = np.where(np.sign(shifted) == np.sign(old_effects), shifted, np.sign(old_effects))
    # If the moved effects need a base outside the scale, the old effects are kept. If the base is still outside, the
    # whole row is kept.
    keeps_effects = ~_is_base(reached - np.bincount(owner, new_effects, rows.height))
    new_effects = np.where(keeps_effects[owner], old_effects, new_effects)
    started = reached - np.bincount(owner, new_effects, rows.height).astype(np.int64)
    movable &= _is_base(started)
    support_low, support_high = SUPPORT_TENTHS[target, reached].T
    support = np.clip(
        needed + reached - effective + draws.offset(rows, draws.SUPPORT, SUPPORT_STEPS), support_low, support_high
    )
    score_low, score_high = SCORE_HUNDREDTHS[target].T
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
        "support_possible": pl.Series((reached + HEADROOM_TENTHS) / 10),
        "authenticity_score": pl.Series(score / 100),
        "capacity_factors": lists_of(items, counts),
        "calculation_steps": calculation_lines(started, new_effects, counts),
    }
    return rows.with_columns(
        series.cast(rows.schema[name]).zip_with(moves, rows[name]).alias(name) for name, series in columns.items()
    )


def _is_base(tenths: Array) -> Array:
    return (tenths >= 0) & (tenths <= SCALE_TENTHS)
