"""Augmentation of scenarios: the same situation with another person, another place and slightly different numbers.

1. The character's name, the relation and the setting are swapped for others of the same kind (`vocabulary`), as whole
   words of the texts. A phrase that cannot be swapped safely is kept. Examples are a name if the texts leave its gender
   open, and a relation that the texts also name in other words (`swap_names`).
2. The numbers move within their cell: the effective capacity within its level, the effects without changing sign, the
   support needed within its target's bounds, the score within its target's band. The numbers that depend on them are
   computed again: base capacity, support possible, and the calculation, one line for each factor. A row keeps its
   numbers if its texts speak of points, or if a number has more than one decimal.

All three bins of the cell stay the same. So does the scenario, and with it the split. Tokens, cost and validation are
null, because no tokens were paid for the copy and nobody has validated it. The texts of every copy differ from the
origin's and from those of other copies made in the same call. A copy is left out if its similarity to its origin
reaches the family's `near_duplicate_threshold`, because only a few words of it would be new.
"""

from __future__ import annotations

import polars as pl

from schema.scenario import FAMILY, TEXT
from schema.text_measures import pair_similarities
from streams.augmentation.scenario.jitter_numbers import moved
from streams.augmentation.scenario.swap_names import TEXTS, swapped


def augment(rows: pl.DataFrame) -> pl.DataFrame:
    """Return an augmented row for each of `rows`, in order; copies that are too similar to their row are left out.

    Args:
        rows: valid rows of the family's wire columns, with their `record` (UInt32) and `copy` (UInt32, the number of
            this copy of its row, from 0). Each result depends only on its row and (`example_id`, `copy`).

    Returns:
        The wire columns and `record`; `augmented_from` is the origin's id, `example_id` and `split` are null.
    """
    copies = swapped(rows)
    before, after = (frame.select(TEXT).to_series() for frame in (rows, copies))
    changed = pl.Series(pair_similarities(before, after) < FAMILY.near_duplicate_threshold)
    copies = moved(copies.filter(changed))
    return (
        copies.with_columns(
            *(
                pl.lit(None, dtype=FAMILY.wire[name]).alias(name)
                for name in ("prompt_tokens", "completion_tokens", "cost_usd", "validation_model", "validation_score")
            ),
            augmented_from=pl.col("example_id"),
            example_id=pl.lit(None, dtype=pl.UInt64),
            split=pl.lit(None, dtype=pl.String),
        )
        .unique(["augmented_from", *TEXTS], keep="first", maintain_order=True)
        .select(*FAMILY.wire, "record")
    )
