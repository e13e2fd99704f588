"""Columns that a feed adds to its rows: where each was read, so that training can be traced back, and its length."""

from __future__ import annotations

import polars as pl

# Number of the source in the feed, the record's partition and offset, and the row within the record.
SOURCE, PARTITION, OFFSET, ROW = "_source", "_partition", "_offset", "_row"
# Length in tokens, special tokens included.
TOKENS = "_tokens"
LINEAGE = {SOURCE: pl.Int64(), PARTITION: pl.Int64(), OFFSET: pl.Int64(), ROW: pl.Int64()}
