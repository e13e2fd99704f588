"""The content of rejected: rows and dead letters by the raw offsets that they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from schema.dead_letter import CONNECT_PREFIX, REASON_HEADER, is_dead_letter, rejected_rows
from schema.family import Family
from schema.ledger import SKIPPED
from schema.record import REJECTED
from streams.audit.rows_by_raw_offset import RowsByRawOffset
from streams.audit.scan import decode_batch, header, source_of

_COLUMNS: dict[str, pl.DataType] = {"example_id": pl.UInt64(), "source_offset": pl.Int64()}


class RejectedLog:
    """Collects the records of rejected: micro-batches of rows, and dead letters with the number of rows of each."""

    def __init__(self, family: Family, raw_topic: str) -> None:
        self._ce_type = (family.name, REJECTED, family.version)
        self._raw_topic = raw_topic
        self.by_source = RowsByRawOffset()
        self.foreign = 0

    def add(self, records: Sequence[Any]) -> None:
        """Add records of rejected."""
        letters = [record for record in records if is_dead_letter(record.headers)]
        for letter in letters:
            source = self._source_of_letter(letter)
            if source is None:
                self.foreign += 1
            elif header(letter, REASON_HEADER) != SKIPPED.encode():
                # One letter covers all skipped offsets of a call, so `Entries.skipped` is not compared here.
                self.by_source.add(source, rejected_rows(letter.value, letter.headers))
        kept = {id(letter) for letter in letters}
        batch = decode_batch([record for record in records if id(record) not in kept], self._ce_type, _COLUMNS)
        self.foreign += batch.foreign
        rows = batch.per_record(np.ones(batch.frame.height, dtype=np.int64))
        for index, record in enumerate(batch.records):
            source = source_of(record, self._raw_topic)
            if source is None:
                self.foreign += 1
            else:
                self.by_source.add(source, rows[index])

    def _source_of_letter(self, letter: Any) -> tuple[int, int, int] | None:
        partition, offset = header(letter, f"{CONNECT_PREFIX}partition"), header(letter, f"{CONNECT_PREFIX}offset")
        ours = header(letter, f"{CONNECT_PREFIX}topic").decode("utf-8", "replace") == self._raw_topic
        if not (ours and partition.isdigit() and offset.isdigit()):
            return None
        return int(partition), int(offset), int(offset)
