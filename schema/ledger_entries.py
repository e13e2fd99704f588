"""Decode and check the entries of ledger records; every reader of a ledger uses this module.

Anybody can write to a topic, so a record in a ledger may hold anything. A reader skips a record that `decode_entries`
refuses, and reports the record's place.
"""

from __future__ import annotations

import polars as pl

from schema import ledger
from schema.errors import RecordError
from schema.record import LEDGER, ForeignHeaders, Headers, decode

COUNTS = ("rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost")

# Larger than in any entry that Feedmill writes, and small enough that sums do not overflow.
_LARGEST_COUNT = 2**48
_LARGEST_OFFSET = 2**62
_LARGEST_PARTITION = 2**20
_LONGEST_NAME = 1024


def decode_entries(value: bytes | None, headers: Headers, family: str, max_rows: int) -> pl.DataFrame:
    """Return the checked entries of one ledger record of `family`; coverage can fold each of them.

    A time that is not a date between 1970 and 9999 becomes null.

    Raises:
        RecordError: the record is not a whole ledger micro-batch of this version; `reason` names the fault.
    """
    ce_type = ForeignHeaders.parse(headers).ce_type
    if ce_type != (family, LEDGER, ledger.VERSION):
        raise RecordError("not_a_ledger_record", f"ce_type {ce_type} is not {family}.{LEDGER}.v{ledger.VERSION}")
    entries = decode(value or b"", ledger.COLUMNS, max_rows).with_columns(pl.col("rows_lost").fill_null(0))
    missing = [name for name in COUNTS if entries[name].null_count()]
    if missing:
        raise RecordError("count_missing", f"{', '.join(missing)} missing in an entry")
    ranges = dict.fromkeys(COUNTS, _LARGEST_COUNT) | {
        "source_partition": _LARGEST_PARTITION,
        "source_offset": _LARGEST_OFFSET,
    }
    for name, most in ranges.items():
        if not _all(entries[name].is_between(0, most)):
            raise RecordError("out_of_range", f"{name} of an entry is missing, negative, or over {most}")
    for column, names in (("reasons", ("reason",)), ("coverage", ("axis", "bin"))):
        counted = entries.select(pl.col(column).explode(empty_as_null=False)).drop_nulls().unnest(column)
        if not _all(counted["rows"].is_between(0, _LARGEST_COUNT)):
            raise RecordError("out_of_range", f"rows in {column} of an entry is missing, negative, or too large")
        for name in names:
            lengths = counted[name].str.len_bytes()
            if not _all(lengths.is_between(1, _LONGEST_NAME)) or counted[name].str.contains("\0", literal=True).any():
                raise RecordError("malformed_name", f"a name in {column} of an entry is missing or malformed")
    time_ms = pl.col("source_time").to_physical()
    return entries.with_columns(pl.when(time_ms.is_between(0, ledger.LATEST_TIME_MS)).then(pl.col("source_time")))


def _all(verdicts: pl.Series) -> bool:
    return bool(verdicts.fill_null(False).all())
