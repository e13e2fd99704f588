"""Routes of families with prose: near duplicates must meet in one partition."""

from __future__ import annotations

from functools import partial

import polars as pl


def smallest_shingle(text: pl.Expr, words: int = 3) -> pl.Expr:
    """Return the smallest shingle hash of each text (UInt64; null for null), as a route.

    `words` is the width of a shingle, the family's `shingle_words`.

    Two texts whose sets of shingles have Jaccard similarity J have the same smallest hash with probability J ("On the
    resemblance and containment of documents", Broder, 1997).
    """
    return text.map_batches(partial(_smallest_of, words=words), return_dtype=pl.UInt64, is_elementwise=True)


def _smallest_of(texts: pl.Series, words: int) -> pl.Series:
    # Importing the compiler takes a second. Commands that only name the family do not wait for it.
    from schema.shingles import smallest

    return smallest(texts, words)
