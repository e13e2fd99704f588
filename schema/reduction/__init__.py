"""The reduction family: untyped lambda-calculus, normal order, one example per step of a trace.

The term determines its span, so two rows with the same term are the same training example. The identity is therefore
the term, and no term of the training split can be in another split too. All rows of a trace go to the same split.
"""

from __future__ import annotations

import polars as pl

from schema.family import Family, Parts
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
    parts=Parts(
        producer="producers.reduction.run:ReductionRun",
        filling="producers.reduction.filling:fill",
        augmentation="streams.augmentation.reduction:augment",
        tensor_form="consumers.reduction.form:FORM",
        commands={
            "produce reduction": "feedmill.reduction_commands:produce_reduction_command",
            "train reduction": "feedmill.train_commands:train_reduction_command",
            "eval reduction": "feedmill.eval_commands:eval_reduction_command",
        },
        samples="tests.reductions:valid",
    ),
)
