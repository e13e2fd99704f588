"""The coverage store's tables, as SQL.

All tables are small except `coverage`. From the start it has a line with 0 rows for every bin and cell of every family.
So folding is an UPDATE and needs no key. Offsets are Kafka's; times are those of the raw records. The tables of
retractions are in `retraction_tables`.
"""

from __future__ import annotations

from schema.family import CELL_AXIS, CELL_SEPARATOR, Family

# Raise it when a table changes; an older store must be folded again.
STORE_VERSION = 5

TABLES = """
CREATE TABLE store (version INTEGER NOT NULL);

-- The folded topics. The id of a topic changes when it is deleted and created again, and on another cluster.
CREATE TABLE sources (family VARCHAR NOT NULL, topic VARCHAR NOT NULL, topic_id VARCHAR NOT NULL);

-- next_offset: the first ledger offset not yet folded; first_offset: the first one that was folded.
CREATE TABLE positions (
    family VARCHAR NOT NULL, "partition" INTEGER NOT NULL, first_offset BIGINT NOT NULL, next_offset BIGINT NOT NULL);

-- The raw records in [first_offset, next_offset) have a ledger entry that is folded.
-- raw_topic_id: the raw topic of these offsets; null in entries of older versions.
CREATE TABLE accounted (
    family VARCHAR NOT NULL, "partition" INTEGER NOT NULL, raw_topic_id VARCHAR, first_offset BIGINT NOT NULL,
    next_offset BIGINT NOT NULL);

-- The raw records in [first_offset, next_offset) were refined, but the ledger has lost their entries.
CREATE TABLE missing (
    family VARCHAR NOT NULL, "partition" INTEGER NOT NULL, first_offset BIGINT NOT NULL, next_offset BIGINT NOT NULL);

-- Ledger records that are no entries: skipped and counted, so that somebody notices them.
CREATE TABLE foreign_records (
    family VARCHAR NOT NULL, "partition" INTEGER NOT NULL, "records" BIGINT NOT NULL, last_offset BIGINT NOT NULL,
    last_reason VARCHAR NOT NULL);

CREATE TABLE totals (
    family VARCHAR NOT NULL, entries BIGINT NOT NULL, rows_in BIGINT NOT NULL, rows_clean BIGINT NOT NULL,
    rows_rejected BIGINT NOT NULL, rows_rerouted BIGINT NOT NULL, rows_augmented BIGINT NOT NULL,
    rows_lost BIGINT NOT NULL, first_generated TIMESTAMPTZ, last_generated TIMESTAMPTZ);

CREATE TABLE reasons (family VARCHAR NOT NULL, reason VARCHAR NOT NULL, "rows" BIGINT NOT NULL);

CREATE TABLE coverage (
    family VARCHAR NOT NULL, axis VARCHAR NOT NULL, bin VARCHAR NOT NULL, "rows" BIGINT NOT NULL,
    first_generated TIMESTAMPTZ, last_generated TIMESTAMPTZ, retracted BIGINT NOT NULL);

CREATE TABLE minutes (
    family VARCHAR NOT NULL, "minute" TIMESTAMPTZ NOT NULL, rows_in BIGINT NOT NULL, rows_clean BIGINT NOT NULL);
"""

# The relations `seed_*` and `sum_*` are frames, registered only for the transaction that reads them.
SEED = """
INSERT INTO coverage
SELECT s.family, s.axis, s.bin, 0, NULL, NULL, 0 FROM seed_bins s ANTI JOIN coverage USING (family, axis, bin);
INSERT INTO totals
SELECT s.family, 0, 0, 0, 0, 0, 0, 0, NULL, NULL FROM seed_families s ANTI JOIN totals USING (family);
"""

FOLD = """
UPDATE totals t SET
    entries = t.entries + s.entries, rows_in = t.rows_in + s.rows_in, rows_clean = t.rows_clean + s.rows_clean,
    rows_rejected = t.rows_rejected + s.rows_rejected, rows_rerouted = t.rows_rerouted + s.rows_rerouted,
    rows_augmented = t.rows_augmented + s.rows_augmented, rows_lost = t.rows_lost + s.rows_lost,
    first_generated = least(t.first_generated, s.first_generated),
    last_generated = greatest(t.last_generated, s.last_generated)
FROM sum_totals s WHERE t.family = s.family;

UPDATE reasons t SET "rows" = t."rows" + s."rows" FROM sum_reasons s WHERE t.family = s.family AND t.reason = s.reason;
INSERT INTO reasons SELECT s.family, s.reason, s."rows" FROM sum_reasons s ANTI JOIN reasons USING (family, reason);

UPDATE coverage t SET
    "rows" = t."rows" + s."rows", first_generated = least(t.first_generated, s.first_generated),
    last_generated = greatest(t.last_generated, s.last_generated)
FROM sum_bins s WHERE t.family = s.family AND t.axis = s.axis AND t.bin = s.bin;
-- Bins that are no longer declared are kept, so that no count is lost.
INSERT INTO coverage
SELECT s.family, s.axis, s.bin, s."rows", s.first_generated, s.last_generated, 0
FROM sum_bins s ANTI JOIN coverage USING (family, axis, bin);

-- A raw topic that was deleted and created again has another id, and its offsets begin again.
UPDATE accounted t SET
    raw_topic_id = s.raw_topic_id,
    first_offset = CASE WHEN t.raw_topic_id IS NOT DISTINCT FROM s.raw_topic_id
        THEN least(t.first_offset, s.first_offset) ELSE s.first_offset END,
    next_offset = CASE WHEN t.raw_topic_id IS NOT DISTINCT FROM s.raw_topic_id
        THEN greatest(t.next_offset, s.next_offset) ELSE s.next_offset END
FROM sum_accounted s WHERE t.family = s.family AND t."partition" = s."partition";
INSERT INTO accounted
SELECT s.family, s."partition", s.raw_topic_id, s.first_offset, s.next_offset
FROM sum_accounted s ANTI JOIN accounted USING (family, "partition");

UPDATE foreign_records t SET
    "records" = t."records" + s."records", last_offset = s.last_offset, last_reason = s.last_reason
FROM sum_foreign s WHERE t.family = s.family AND t."partition" = s."partition";
INSERT INTO foreign_records
SELECT s.family, s."partition", s."records", s.last_offset, s.last_reason
FROM sum_foreign s ANTI JOIN foreign_records USING (family, "partition");

UPDATE minutes t SET rows_in = t.rows_in + s.rows_in, rows_clean = t.rows_clean + s.rows_clean
FROM sum_minutes s WHERE t.family = s.family AND t."minute" = s."minute";
INSERT INTO minutes
SELECT s.family, s."minute", s.rows_in, s.rows_clean FROM sum_minutes s ANTI JOIN minutes USING (family, "minute");
-- The bound never falls, so the remaining minutes do not depend on how entries were batched.
DELETE FROM minutes t USING (SELECT family, max("minute") AS newest FROM minutes GROUP BY family) n
WHERE t.family = n.family AND t."minute" < n.newest - to_minutes(?);
"""


def cell_view(family: Family) -> str:
    """Return the SQL that makes the view a family declares as `cell_view`: one line per cell, its bins by axis."""
    bins = (f"split_part(bin, '{CELL_SEPARATOR}', {nth}) AS \"{axis}\"" for nth, axis in enumerate(family.cell_axes, 1))
    return (
        f'CREATE OR REPLACE VIEW "{family.cell_view}" AS '  # noqa: S608 - names of the declaration, never input
        f'SELECT {", ".join(bins)}, greatest("rows" - retracted, 0) AS generated_count, '
        "first_generated, last_generated "
        f"FROM coverage WHERE family = '{family.name}' AND axis = '{CELL_AXIS}'"
    )
