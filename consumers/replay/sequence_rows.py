"""Files of training sequences: one row per sequence of a family whose tensor form expands rows."""

from __future__ import annotations

from io import BytesIO

import polars as pl

from consumers.tensor_form import PART, Expansion
from schema.family import Family
from schema.json_form import ID_COLUMNS, hex_digits


def sequence_columns(family: Family, expand: Expansion) -> dict[str, pl.DataType]:
    """Return the columns of a file of sequences: those of the row, the number of the part, and the sequence's own."""
    return {name: family.wire[name] for name in expand.beside} | {PART: pl.Int32()} | dict(expand.schema)


def sequence_lines(frame: pl.DataFrame) -> bytes:
    """Return sequences as UTF-8 lines of JSON, each with a newline at its end; ids are texts of 16 hex digits."""
    if frame.is_empty():
        return b""
    buffer = BytesIO()
    frame.with_columns([hex_digits(frame[name]) for name in ID_COLUMNS if name in frame.columns]).write_ndjson(buffer)
    return buffer.getvalue()
