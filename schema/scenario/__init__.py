"""The scenario family: moments that ask of a character what they can, or cannot, give.

Two rows with the same words are the same example, whatever their numbers say: the identity is the text. The group is
the scenario, so that an augmented row stands in the split of the row it was made from. Rows are routed by the smallest
hash of their text's shingles: two texts of Jaccard similarity J share a partition with probability J or more.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family
from schema.routing import smallest_shingle
from schema.scenario.columns import COLUMNS, flatten, nest
from schema.scenario.coverage import AXES, CELL_AXES, QUOTAS
from schema.scenario.rules import ANSWER_FAULTS, Scenario, derive

TEXT = pl.concat_str("context", "request", "response", separator="\n")

FAMILY = Family(
    name="scenario",
    version=1,
    columns=COLUMNS,
    rules=Scenario,
    # A model's answer that could not be taken has no columns to find fault with.
    decisive=(*ANSWER_FAULTS, "answer_fault_unknown"),
    derive=derive,
    axes=AXES,
    cell_axes=CELL_AXES,
    quotas=QUOTAS,
    identity=TEXT,
    group=pl.col("scenario_id"),
    route=smallest_shingle(TEXT),
    text=TEXT,
    flatten=flatten,
    nest=nest,
)
