"""Routes of families with prose: near duplicates must meet in one partition."""

from __future__ import annotations

import polars as pl


def smallest_shingle(text: pl.Expr) -> pl.Expr:
    """Return the smallest shingle hash of each text (UInt64; null for null), as a route.

    Two texts whose sets of shingles have Jaccard similarity J have the same smallest hash with probability J ("On the
    resemblance and containment of documents", Broder, 1997).
    """
    return text.map_batches(_smallest_of, return_dtype=pl.UInt64, is_elementwise=True)


def _smallest_of(texts: pl.Series) -> pl.Series:
    # Importing the compiler takes a second. Commands that only name the family do not wait for it.
    from schema.shingles import smallest

    return smallest(texts)
