"""A block of scenario rows: numbers and texts put together in the family's columns, and identified."""

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
    """Where a piece of rows comes from: rows first, first + 1, ... of a seed.

    `batch` names the piece in `batch_id`, and `chunk` is its number in records. Rows made to fill cells have `series`
    "fill-": rows of one seed and number are then other rows than those of a run.
    """

    seed: int
    first: int
    chunk: int
    batch: str
    series: str = ""

    def draws(self, rows: int) -> Draws:
        """Return the draws of this many rows."""
        return Draws(self.seed, self.first, rows, self.series)


def rows_of(
    numbers: Numbers, texts: Mapping[str, pl.Series], factor_names: pl.Series, generator: str, origin: Origin
) -> pl.DataFrame:
    """Return an identified frame of the family's wire columns; no model has part in it, so what one costs is null.

    Args:
        numbers: of the N rows.
        texts: by column, what was written or chosen for each row.
        factor_names: names of all rows' factors, one row after another.
        generator: what made them, as `generator` says it.
        origin: of the rows; names them too.
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
