"""The columns of the ledger: one entry per raw record, with the counts that coverage adds up.

A ledger record is a micro-batch of entries. `coverage` counts the clean rows per axis and bin; the cells are the bins
of the pseudo-axis `cell`. `reasons` counts the broken rules; a row that breaks two rules counts for both.

`source_topic_id` is the id that Kafka gave the raw topic. A raw topic that was deleted and created again has another
id, and its offsets start at 0 again. In entries of older versions the id is null and means the topic that exists.

`rows_lost` is null or 0 in an ordinary entry. A larger number marks offsets that retention removed from raw before they
were refined: the `rows_lost` offsets that end with `source_offset`. Each of them counts as one row in and one row lost,
with the reason `lost_to_retention`. So for every entry
rows_in = rows_clean + rows_rejected + rows_rerouted + rows_lost.
"""

from __future__ import annotations

import polars as pl

VERSION = 1

# Reasons that only the refine stage itself gives.
LOST_TO_RETENTION = "lost_to_retention"
SKIPPED = "skipped"

# The end of the year 9999, in ms since the epoch: the last date that every library can write.
LATEST_TIME_MS = 253_402_300_799_999

COLUMNS: dict[str, pl.DataType] = {
    "source_partition": pl.Int32(),
    "source_topic_id": pl.String(),
    "source_offset": pl.Int64(),
    "source_time": pl.Datetime("ms", "UTC"),
    "run": pl.String(),
    "chunk": pl.Int64(),
    "rows_in": pl.Int64(),
    "rows_clean": pl.Int64(),
    "rows_rejected": pl.Int64(),
    "rows_rerouted": pl.Int64(),
    "rows_augmented": pl.Int64(),
    "rows_lost": pl.Int64(),
    "reasons": pl.List(pl.Struct({"reason": pl.String(), "rows": pl.Int64()})),
    "coverage": pl.List(pl.Struct({"axis": pl.String(), "bin": pl.String(), "rows": pl.Int64()})),
}


def sound_time_ms(time_ms: int | None) -> int | None:
    """Return a record's timestamp (ms since the epoch), or None if it is not a date between 1970 and 9999.

    The sender sets the timestamp: Kafka accepts -1 for a missing one, and older brokers accept nanoseconds or -2^62.
    """
    return time_ms if time_ms is not None and 0 <= time_ms <= LATEST_TIME_MS else None
