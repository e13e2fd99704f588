"""Files of training sequences: one row per sequence of a family whose tensor form expands rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import polars as pl

from consumers.tensor_form import PART, Expansion
from schema.family import Family
from schema.json_form import ID_COLUMNS, hex_digits


@dataclass(frozen=True)
class SequenceRows:
    """How a replay turns rows of a family into rows of sequences.

    Attributes:
        family: the family.
        expand: its expansion.
    """

    family: Family
    expand: Expansion

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of the file: those of the row, the number of the part, and the sequence's own."""
        beside = {name: self.family.wire[name] for name in self.expand.beside}
        return beside | {PART: pl.Int32()} | dict(self.expand.schema)

    def of(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield the sequences of rows, with `columns`, in frames of limited size; masking is that of seed 0, pass 0."""
        beside = rows.select(self.expand.beside)
        for parents, made in self.expand.sequences(rows, 0, 0):
            yield beside[parents].hstack(made).select(list(self.columns))


def sequence_lines(frame: pl.DataFrame) -> bytes:
    """Return sequences as UTF-8 lines of JSON, each with a newline at its end; ids are texts of 16 hex digits."""
    if frame.is_empty():
        return b""
    buffer = BytesIO()
    frame.with_columns([hex_digits(frame[name]) for name in ID_COLUMNS if name in frame.columns]).write_ndjson(buffer)
    return buffer.getvalue()
