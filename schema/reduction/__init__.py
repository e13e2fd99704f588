"""The reduction family: untyped lambda-calculus, normal order, one example per step of a trace.

Two rows with the same term are the same training example, for the term determines its span: the identity is the term,
so that no term of the training split can stand in another split as well. The group is the trace.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family
from schema.reduction.columns import COLUMNS, flatten, nest
from schema.reduction.coverage import AXES, CELL_AXES, QUOTAS, cell_possible, cell_room
from schema.reduction.rules import Reduction, derive

FAMILY = Family(
    name="reduction",
    version=1,
    columns=COLUMNS,
    rules=Reduction,
    derive=derive,
    axes=AXES,
    cell_axes=CELL_AXES,
    cell_possible=cell_possible,
    cell_room=cell_room,
    quotas=QUOTAS,
    identity=pl.col("term"),
    group=pl.col("trace_id"),
    flatten=flatten,
    nest=nest,
)
