"""A small family for tests, as a template for new ones: additions of two numbers below 300. See CONTRIBUTING."""

from __future__ import annotations

import dataframely as dy
import polars as pl

from schema.axes import banded
from schema.family import Example, Family, Parts

LARGEST = 300
# Each cell is one band of the left number and one of the right.
BANDS = ("0-99", "100-199", "200-299")
WIDTH = 7


class Addition(Example):
    """The rules of an addition; a rule's name is the reason code of the rows that break it."""

    text = dy.String(nullable=False)
    left = dy.Int32(nullable=False, min=0, max=LARGEST - 1)
    right = dy.Int32(nullable=False, min=0, max=LARGEST - 1)
    total = dy.Int32(nullable=False)

    @dy.rule()
    def text_mismatch(cls) -> pl.Expr:
        """The row is valid if its text is the sum as digits, e.g. `007+120`."""
        return pl.col("text") == written(pl.col("left"), pl.col("right"))

    @dy.rule()
    def total_wrong(cls) -> pl.Expr:
        """The row is valid if its total is the sum of its numbers."""
        return pl.col("total") == pl.col("left") + pl.col("right")


def written(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """Return the text of an addition: two numbers of three digits."""
    return pl.format("{}+{}", *(number.cast(pl.String).str.zfill(3) for number in (left, right)))


FAMILY = Family(
    name="addition",
    version=1,
    columns={"text": pl.String(), "left": pl.Int32(), "right": pl.Int32(), "total": pl.Int32()},
    rules=Addition,
    derive=lambda frame: frame,
    axes=tuple(banded(f"{name}_band", pl.col(name), (100, 200), BANDS) for name in ("left", "right")),
    cell_axes=("left_band", "right_band"),
    cell_minimum=4,
    quotas=(),
    identity=pl.col("text"),
    group=pl.col("text"),
    parts=Parts(
        producer="tests.family_template.producer:AdditionRun",
        filling="tests.family_template.producer:fill",
        tensor_form="tests.family_template.form:FORM",
        commands={"produce addition": "tests.family_template.command:produce_addition_command"},
        samples="tests.family_template.producer:samples",
    ),
)
