"""The part of the coverage store that counts retracted rows: its tables and statements, for cursors of the store.

Each retracted row of clean is stored once, so an entry that comes again changes nothing. The ledger's counts stay as
they are. `coverage.retracted` counts beside them, so both can be compared with their topics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb
import polars as pl

from broker.retractions import RetractionBound
from schema.retractions import KEY

TABLES = """
-- Each row of clean that is retracted, once.
CREATE TABLE retracted (
    family VARCHAR NOT NULL, example_id UBIGINT NOT NULL, "partition" INTEGER NOT NULL, "offset" BIGINT NOT NULL);

CREATE TABLE retracted_reasons (family VARCHAR NOT NULL, reason VARCHAR NOT NULL, "rows" BIGINT NOT NULL);

-- next_offset: the first offset of the retractions topic that is not folded yet.
CREATE TABLE retraction_positions (family VARCHAR NOT NULL, topic_id VARCHAR NOT NULL, next_offset BIGINT NOT NULL);
"""

# `new_retractions` is a frame of entries, one for each row of clean, and `family` its family.
_UNKNOWN = """
SELECT n.nth FROM new_retractions n
ANTI JOIN (SELECT * FROM retracted WHERE family = ?) r USING (example_id, "partition", "offset")
"""

# `fresh_*` are frames.
_FOLD = """
INSERT INTO retracted SELECT family, example_id, "partition", "offset" FROM fresh_rows;

UPDATE retracted_reasons t SET "rows" = t."rows" + s."rows" FROM fresh_reasons s
WHERE t.family = s.family AND t.reason = s.reason;
INSERT INTO retracted_reasons
SELECT s.family, s.reason, s."rows" FROM fresh_reasons s ANTI JOIN retracted_reasons USING (family, reason);

UPDATE coverage t SET retracted = t.retracted + s."rows" FROM fresh_bins s
WHERE t.family = s.family AND t.axis = s.axis AND t.bin = s.bin;
INSERT INTO coverage
SELECT s.family, s.axis, s.bin, 0, NULL, NULL, s."rows" FROM fresh_bins s ANTI JOIN coverage USING (family, axis, bin);
"""


@dataclass(frozen=True)
class RetractedCounts:
    """The retracted rows of one family: how many, by reason, and by bin ({axis: {bin: rows}}, bins with rows only)."""

    rows: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def position(cursor: duckdb.DuckDBPyConnection, family: str) -> RetractionBound | None:
    """Return up to where the retractions of `family` are folded; None before the first fold."""
    query = "SELECT topic_id, next_offset FROM retraction_positions WHERE family = ?"
    # A result that is not read to its end would block the connection.
    rows = cursor.execute(query, [family]).fetchall()
    return RetractionBound(*rows[0]) if rows else None


def unknown(cursor: duckdb.DuckDBPyConnection, family: str) -> list[int]:
    """Return the numbers (`nth`) of those rows of the registered frame `new_retractions` that are not stored yet."""
    return [nth for (nth,) in cursor.execute(_UNKNOWN, [family]).fetchall()]


def fresh_frames(family: str, entries: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the frames that `fold` reads, by name, for different entries that are not stored yet."""
    named = pl.lit(family).alias("family")
    bins = entries.select(pl.col("coverage").explode(empty_as_null=False)).drop_nulls().unnest("coverage")
    return {
        "fresh_rows": entries.select(named, *KEY),
        "fresh_reasons": entries.group_by(pl.col("reason").fill_null("")).agg(rows=pl.len()).select(named, pl.all()),
        "fresh_bins": bins.drop_nulls().group_by("axis", "bin").agg(rows=pl.len()).select(named, pl.all()),
    }


def fold(cursor: duckdb.DuckDBPyConnection, family: str, to: RetractionBound) -> None:
    """Add the registered frames of `fresh_frames` and store the position `to`; the caller's transaction holds both."""
    cursor.execute(_FOLD)
    cursor.execute("DELETE FROM retraction_positions WHERE family = ?", [family])
    cursor.execute("INSERT INTO retraction_positions VALUES (?, ?, ?)", [family, to.topic_id, to.end])


def counts(cursor: duckdb.DuckDBPyConnection, family: str) -> RetractedCounts:
    """Return the counts of `family`."""
    query = 'SELECT reason, "rows" FROM retracted_reasons WHERE family = ? ORDER BY "rows" DESC, reason'
    reasons = dict(cursor.execute(query, [family]).fetchall())
    bins: dict[str, dict[str, int]] = {}
    query = "SELECT axis, bin, retracted FROM coverage WHERE family = ? AND retracted > 0"
    for axis, bin_, rows in cursor.execute(query, [family]).fetchall():
        bins.setdefault(axis, {})[bin_] = rows
    return RetractedCounts(sum(reasons.values()), reasons, bins)
