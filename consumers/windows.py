"""Rows on their way from records to batches: what belongs to a feed is kept, and cut into windows."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from consumers.batches import LINEAGE, OFFSET, PARTITION, TensorForm
from consumers.decoding import decode_record
from consumers.reading import Record
from schema.errors import FeedError
from schema.family import ENVELOPE, Family
from schema.record import CLEAN


class CleanRows:
    """Decodes clean records and keeps the rows of one split that are short enough; counts those that are not.

    Args:
        family: whose clean topic is read.
        form: its tensor form.
        split: "train", "val" or "test"; None keeps all.
        max_tokens: longer rows are left out and counted in `too_long`.
    """

    def __init__(self, family: Family, form: TensorForm, split: str | None, max_tokens: int) -> None:
        self._kind = (family.name, CLEAN, family.version)
        self._columns = {name: family.columns[name] for name in form.columns} | dict(ENVELOPE)
        self._in_split = pl.lit(True) if split is None else pl.col("split") == split
        self._short = form.tokens <= max_tokens
        self.too_long = 0

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of the frames that `of` returns."""
        return self._columns | LINEAGE

    def of(self, record: Record, topic: str, kept: pl.Expr | None = None) -> pl.DataFrame:
        """Return the record's rows that belong to the feed, with lineage columns; `kept` filters first.

        Raises:
            FeedError: the record cannot be decoded, or is of another type or version.
        """
        frame = decode_record(record, topic, self._kind, self._columns, FeedError)
        chosen = frame.filter(self._in_split if kept is None else self._in_split & kept)
        rows = chosen.filter(self._short)
        self.too_long += chosen.height - rows.height
        return rows.with_columns(
            pl.lit(record.partition, dtype=LINEAGE[PARTITION]).alias(PARTITION),
            pl.lit(record.offset, dtype=LINEAGE[OFFSET]).alias(OFFSET),
        )


class Windows:
    """Cuts a sequence of rows into windows of `rows` rows, rounded down to whole batches of `batch_size`.

    Every window but the last of a flush holds whole batches only, so that only a flush ends in a smaller batch.
    """

    def __init__(self, schema: dict[str, pl.DataType], rows: int, batch_size: int) -> None:
        self._size = max(rows // batch_size, 1) * batch_size
        self._pending: list[pl.DataFrame] = []
        self._schema = schema
        self.height = 0

    def add(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Take `rows` and yield the windows they complete."""
        if rows.height:
            self._pending.append(rows)
            self.height += rows.height
        if self.height < self._size:
            return
        held = self._join()
        whole = self.height - self.height % self._size
        self._pending, self.height = [held[whole:]], held.height - whole
        yield from held[:whole].iter_slices(self._size)

    def flush(self) -> pl.DataFrame:
        """Return what is held, which may be no rows, and hold nothing."""
        held = self._join()
        self._pending, self.height = [], 0
        return held

    def _join(self) -> pl.DataFrame:
        return pl.concat(self._pending) if self._pending else pl.DataFrame(schema=self._schema)
