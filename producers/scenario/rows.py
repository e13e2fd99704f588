"""Build identified scenario rows in the family's columns from numbers and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from producers.scenario.draws import Draws
from producers.scenario.numbers import Numbers, calculation, factor_list, points
from schema.family import identify
from schema.scenario import FAMILY
from schema.scenario.bands import COMPLEXITY_TYPES, level_names, target_names
from schema.scenario.columns import COLUMNS


@dataclass(frozen=True)
class Origin:
    """The origin of a batch of rows: numbers first, first + 1, ... of a seed and a series.

    `batch` is the value of `batch_id`, and `chunk` the chunk number in records. Rows that fill cells have the `series`
    "fill-", so they differ from a run's rows of the same seed and number.
    """

    seed: int
    first: int
    chunk: int
    batch: str
    series: str = ""

    def draws(self, rows: int) -> Draws:
        """Return the draws of the first `rows` rows."""
        return Draws(self.seed, self.first, rows, self.series)


def rows_of(
    numbers: Numbers, texts: Mapping[str, pl.Series], factor_names: pl.Series, generator: str, origin: Origin
) -> pl.DataFrame:
    """Return an identified frame of the family's wire columns; the columns of language models are null.

    Args:
        numbers: of the N rows.
        texts: {column: the N values of this column}.
        factor_names: names of all rows' factors, row by row.
        generator: value of the `generator` column.
        origin: seed, numbers and batch of the rows; ids are made from it.
    """
    count = len(numbers.base)
    number = pl.int_range(origin.first, origin.first + count, eager=True)
    own = {
        **texts,
        "scenario_id": (pl.lit(f"{origin.series}{origin.seed:x}-") + number.cast(pl.String)),
        "capacity_factors": factor_list(factor_names, numbers),
        "base_capacity": points(numbers.base),
        "effective_capacity": points(numbers.effective),
        "capacity_level": pl.Series(level_names()).gather(numbers.level),
        "support_needed": points(numbers.needed),
        "support_possible": points(numbers.possible),
        "authenticity_score": pl.Series(numbers.score / 100),
        "authenticity_target": pl.Series(target_names()).gather(numbers.target),
        "complexity_type": pl.Series(COMPLEXITY_TYPES).gather(numbers.kind),
        "calculation_steps": calculation(numbers),
        "generator": pl.lit(generator),
        "batch_id": pl.lit(origin.batch),
        "seed": pl.lit(origin.seed),
        "chunk": pl.lit(origin.chunk),
    }
    columns = [own.get(name, pl.lit(None)) for name in COLUMNS]
    frame = pl.select(
        (column if isinstance(column, pl.Expr) else pl.lit(column)).cast(kind).alias(name)
        for column, (name, kind) in zip(columns, COLUMNS.items(), strict=True)
    )
    return identify(frame, FAMILY).select(*FAMILY.wire)
