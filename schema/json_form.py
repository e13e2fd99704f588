"""The JSON form of examples: one object per line, nested as the family declares, ids as 16 hex digits.

An id is a uint64. Many JSON readers lose the low digits of integers above 2^53, so ids are always written as texts.
"""

from __future__ import annotations

from io import BytesIO

import polars as pl
import pyarrow as pa

from schema.family import Family

ID_COLUMNS = ("example_id", "augmented_from")


def json_form(frame: pl.DataFrame, family: Family) -> pl.DataFrame:
    """Return a frame of the family's columns as a frame with one column per key of the JSON form."""
    ids = [hex_digits(frame[name]) for name in ID_COLUMNS if name in frame.columns]
    return family.nest(frame.with_columns(ids))


def json_lines(frame: pl.DataFrame, family: Family) -> bytes:
    """Return a frame of the family's columns as UTF-8 lines of JSON, each with a newline at its end."""
    if frame.is_empty():
        return b""
    buffer = BytesIO()
    json_form(frame, family).write_ndjson(buffer)
    return buffer.getvalue()


def hex_digits(ids: pl.Series) -> pl.Series:
    """Return `ids` (UInt64) as texts of 16 hex digits, highest first; null for null."""
    # The integers' bytes, highest first, are written as hex at once, without a Python loop over rows.
    raw = ids.fill_null(0).to_numpy().astype(">u8").tobytes()
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(ids), [None, pa.py_buffer(raw)])
    text = pl.Series(ids.name, pl.from_arrow(array)).bin.encode("hex")
    return text.set(ids.is_null(), None) if ids.null_count() else text
