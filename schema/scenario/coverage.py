"""The scenario family's coverage axes, cells and quotas: 4 capacities x 4 targets x 8 types = 128 cells."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import polars as pl

from schema.axes import Axis, Quota, banded, labelled
from schema.scenario.bands import AUTHENTICITY_TARGETS, CAPACITY_LEVELS, COMPLEXITY_TYPES, level_names, target_names

# Steps of 0.05 from 0.20 to 1.00; the last bin includes 1.00.
SCORE_EDGES = tuple(hundredths / 100 for hundredths in range(20, 101, 5))
SCORE_BINS = tuple(f"{low:.2f}-{high:.2f}" for low, high in pairwise(SCORE_EDGES))

# The same order as in the store's view `parameter_coverage`.
CELL_AXES = ("capacity_level", "authenticity_target", "complexity_type")
_OWN_GENERATORS = ("composer", "narrow", "llm")
_generator = labelled("generator", pl.col("generator"), _OWN_GENERATORS)
AXES: tuple[Axis, ...] = (
    labelled("capacity_level", pl.col("capacity_level"), level_names()),
    labelled("authenticity_target", pl.col("authenticity_target"), target_names()),
    labelled("complexity_type", pl.col("complexity_type"), COMPLEXITY_TYPES),
    banded("authenticity_score", pl.col("authenticity_score"), SCORE_EDGES[1:-1], SCORE_BINS),
    Axis("generator", (*_OWN_GENERATORS, "other"), _generator.code.fill_null(len(_OWN_GENERATORS))),
)

_MINIMA: Mapping[str, Mapping[str, int]] = {
    "authenticity_target": {"failed": 2, "struggling": 3, "authentic": 4, "excellent": 3},
    "complexity_type": {
        "baseline": 2,
        "people_pleasing": 2,
        "misjudgment_over": 2,
        "misjudgment_under": 1,
        "defensive_lashing": 1,
        "emergency_override": 2,
        "cultural_indirect": 1,
        "mixed_emotions": 2,
    },
}
_SHARE_TOLERANCE = 0.01
# The spread is max - min, because a variance or standard deviation of 0.3 is impossible at these shares.
_LEAST_SPREAD = 0.3
_LEAST_TYPES = 5

QUOTAS = (
    Quota("quota_excellent_share", "max_share", "authenticity_target", ("excellent",), 0.40),
    Quota("quota_baseline_share", "max_share", "complexity_type", ("baseline",), 0.30),
    Quota("complexity_types", "distinct", "complexity_type", COMPLEXITY_TYPES, _LEAST_TYPES),
    Quota("authenticity_spread", "spread", "authenticity_score", SCORE_BINS, _LEAST_SPREAD, edges=SCORE_EDGES),
    *(
        Quota(f"{band.name}_share", "share", axis, (band.name,), band.share, _SHARE_TOLERANCE)
        for axis, bands in (("capacity_level", CAPACITY_LEVELS), ("authenticity_target", AUTHENTICITY_TARGETS))
        for band in bands
    ),
    *(
        Quota(f"{bin_}_minimum", "min_count", axis, (bin_,), minimum)
        for axis, minima in _MINIMA.items()
        for bin_, minimum in minima.items()
    ),
)
