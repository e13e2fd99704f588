"""Augmentation of scenarios: the same moment of another person, elsewhere, with slightly other numbers.

1. The character's name, the relation and the setting are swapped for others of their kind (`vocabulary`), wherever they
   stand in the texts as whole words. What cannot be swapped safely is left: a name whose gender the texts leave open
   between two, a relation that the texts speak of in other words too, a setting of no known kind, a phrase whose
   replacement is in the text already.
2. The numbers are moved within their cell: the effective capacity within its level, the effects without changing
   sign, the support needed within its target's bounds, the score within its target's band. What follows from them is
   worked out anew: base capacity, support possible, and the calculation, one line for each factor. A row whose texts
   speak of points keeps its numbers, and so does one with numbers finer than are written.

All three bins of the cell stay, and so does the scenario, and with it the split. Tokens, cost and validation are null:
no tokens were paid for the copy, and nobody has validated it. Every copy's texts differ from the origin's, and from
those of the other copies that are made in the same call; what cannot differ is left out.
"""

from __future__ import annotations

import polars as pl

from schema.scenario import FAMILY
from streams.augmentation.scenario.jitter_numbers import moved
from streams.augmentation.scenario.swap_names import TEXTS, swapped


def augment(rows: pl.DataFrame) -> pl.DataFrame:
    """Return an augmented row for each of `rows`, in order, but for those whose texts cannot be changed.

    Args:
        rows: valid rows of the family's wire columns, with their `record` (UInt32) and `copy` (UInt32, the number of
            this copy of its row, from 0). Each result depends on (`example_id`, `copy`) and its row alone.

    Returns:
        The wire columns and `record`; `augmented_from` is the origin's id, `example_id` and `split` are null.
    """
    made = swapped(rows)
    changed = rows.select(FAMILY.identity).to_series() != made.select(FAMILY.identity).to_series()
    made = moved(made.filter(changed))
    return (
        made.with_columns(
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
