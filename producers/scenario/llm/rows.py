"""Turn rows of a model's answers into frames, label them by their own numbers, and check the family's rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from schema.family import identify
from schema.scenario import FAMILY
from schema.scenario.bands import level_of, target_of

# {column: value} of a row; columns that the answer does not give are absent.
Row = dict[str, Any]


def to_frame(rows: Iterable[Row]) -> pl.DataFrame:
    """Return rows as an identified wire frame; level and target follow from the numbers, and are null outside bands."""
    values = list(rows)
    frame = pl.DataFrame({name: [row.get(name) for row in values] for name in FAMILY.columns}, schema=FAMILY.columns)
    frame = frame.with_columns(
        capacity_level=level_of(pl.col("effective_capacity")),
        authenticity_target=target_of(pl.col("authenticity_score")),
    )
    return identify(frame, FAMILY).select(list(FAMILY.wire))


def broken_rules(frame: pl.DataFrame) -> list[list[str]]:
    """Return, for each row of a wire frame, the names of the family's rules that it breaks, as in the refine stage."""
    numbered = frame.with_columns(record=pl.int_range(pl.len(), dtype=pl.UInt32))
    _, failures = FAMILY.rules.filter(FAMILY.derive(numbered))
    details = failures.details()
    verdicts = [name for name, dtype in details.schema.items() if isinstance(dtype, pl.Enum) and name not in numbered]
    broken: list[list[str]] = [[] for _ in range(frame.height)]
    for number, *values in details.select("record", *verdicts).iter_rows():
        broken[number] = [name for name, value in zip(verdicts, values, strict=True) if value == "invalid"]
    return broken
