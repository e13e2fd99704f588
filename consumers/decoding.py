"""A record of one of Feedmill's own stages as a frame: its type and version are checked before its bytes are read."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from consumers.reading import Record
from schema.errors import FeedmillError, RecordError
from schema.record import ForeignHeaders, decode

# What the refine stage writes is far smaller; this only bounds what a damaged record can make us allocate.
_MAX_ROWS = 10_000_000


def decode_record(
    record: Record,
    topic: str,
    kind: tuple[str, str, int],
    columns: Mapping[str, pl.DataType],
    error: type[FeedmillError],
) -> pl.DataFrame:
    """Return the rows of `record`, with exactly `columns`.

    Args:
        record: as read from `topic`.
        topic: for the error's line.
        kind: (family, stage, version) that the record must be of.
        columns: the columns to read, in order; one that the record lacks is null.
        error: raised where the record is of another kind or version, or cannot be decoded.
    """
    where = f"{topic}/{record.partition} offset {record.offset}"
    try:
        found = ForeignHeaders.parse(record.headers).ce_type
        if found == kind:
            return decode(record.value, columns, _MAX_ROWS)
    except RecordError as cause:
        raise error(f"{where} cannot be decoded ({cause.reason}: {cause}): run `feedmill doctor`") from cause
    wanted = "feedmill.{}.{}.v{}".format(*kind)
    named = "none" if found is None else "feedmill.{}.{}.v{}".format(*found)
    raise error(f"{where} has type {named}, and this build reads {wanted}: use a build for that type, or another topic")
