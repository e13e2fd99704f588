"""Filters of documents by length and quality, as expressions over the columns of a row.

The settings named `code_...` choose the filters of the refine workers. A feed can use the same expressions in addition.
"""

from __future__ import annotations

import polars as pl

from schema.settings import Settings
from schema.source_code.languages import FIRST_CLASS

# The rule of `is_idiomatic`: idiomatic patterns for each low-quality mark.
_PATTERNS_FOR_A_MARK = 2


def is_idiomatic() -> pl.Expr:
    """Whether code has an idiomatic pattern, and at least twice as many as low-quality marks.

    It is true for every language without patterns.
    """
    enough = (pl.col("idiomatic") >= 1) & (pl.col("idiomatic") >= _PATTERNS_FOR_A_MARK * pl.col("low_quality"))
    return enough | ~pl.col("language").is_in(FIRST_CLASS)


def is_documented() -> pl.Expr:
    """Whether code has a doc comment or docstring; true for every language without patterns."""
    return pl.col("documented") | ~pl.col("language").is_in(FIRST_CLASS)


def filters(settings: Settings) -> dict[str, pl.Expr]:
    """Return the filters that `settings` choose, by the reason of a row that does not pass.

    Example::

        chosen = filters(load_settings(code_prefer_idiomatic=True))
        list(chosen)  # ["text_too_short", "text_too_long", "not_idiomatic"]
    """
    chosen = {
        "text_too_short": pl.col("characters") >= settings.code_min_length,
        "text_too_long": pl.col("characters") <= settings.code_max_length,
    }
    if settings.code_prefer_idiomatic:
        chosen["not_idiomatic"] = is_idiomatic()
    if settings.code_prefer_documented:
        chosen["not_documented"] = is_documented()
    return chosen
