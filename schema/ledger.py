"""The ledger: one entry per raw record, and what coverage folds.

A ledger record is a micro-batch of entries. For every entry rows_in = rows_clean + rows_rejected + rows_rerouted;
`coverage` counts the clean rows per axis and bin (the cells are the pseudo-axis `cell`), `reasons` the broken rules
(a row that breaks two rules counts under both).
"""

from __future__ import annotations

import polars as pl

VERSION = 1

COLUMNS: dict[str, pl.DataType] = {
    "source_partition": pl.Int32(),
    "source_offset": pl.Int64(),
    "source_time": pl.Datetime("ms", "UTC"),
    "run": pl.String(),
    "chunk": pl.Int64(),
    "rows_in": pl.Int64(),
    "rows_clean": pl.Int64(),
    "rows_rejected": pl.Int64(),
    "rows_rerouted": pl.Int64(),
    "rows_augmented": pl.Int64(),
    "reasons": pl.List(pl.Struct({"reason": pl.String(), "rows": pl.Int64()})),
    "coverage": pl.List(pl.Struct({"axis": pl.String(), "bin": pl.String(), "rows": pl.Int64()})),
}
