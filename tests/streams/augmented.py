"""Rows for the tests of augmentations: copies as the refine stage numbers them, and its verdict on the results."""

from __future__ import annotations

import polars as pl

from schema.family import Family, identify


def copies(frame: pl.DataFrame, count: int) -> pl.DataFrame:
    """Return every row `count` times, with the columns `record` and `copy`."""
    numbered = frame.with_columns(record=pl.int_range(pl.len(), dtype=pl.UInt32))
    return pl.concat([numbered.with_columns(copy=pl.lit(copy, dtype=pl.UInt32)) for copy in range(count)])


def judged(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Return the rows as the refine stage derives them; a row that breaks a rule fails the test."""
    valid, failures = family.rules.filter(family.derive(identify(frame, family)))
    assert failures.counts() == {}
    return valid
