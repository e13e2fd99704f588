"""Columns that a feed adds to its rows: where each was read, so that a training step can be traced back."""

from __future__ import annotations

import polars as pl

# Number of the source in the feed, the record's partition and offset, and the row within the record.
SOURCE, PARTITION, OFFSET, ROW = "_source", "_partition", "_offset", "_row"
LINEAGE = {SOURCE: pl.UInt8(), PARTITION: pl.Int32(), OFFSET: pl.Int64(), ROW: pl.Int32()}
