"""The content of raw: the offsets of its committed records, and the rows that workers sent there."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schema.errors import RecordError
from schema.family import Family
from schema.record import RAW, ForeignHeaders
from streams.audit.rows_by_raw_offset import RowsByRawOffset
from streams.audit.scan import header, source_of

# The id of a record that a worker sends to raw: .../<raw partition>.<raw offset>.<why>.<target>.<part>
_SENT_BY_WORKER = re.compile(rb".*/(?P<partition>[0-9]+)\.(?P<offset>[0-9]+)\.(?P<why>rerouted|augmented)\.[0-9.]+")


class RawLog:
    """Collects the records of raw.

    Anybody may write to raw, with any headers. So more rows may claim to be a worker's than workers sent; the audit
    only requires that there are not fewer.
    """

    def __init__(self, family: Family, raw_topic: str) -> None:
        self._ce_type = (family.name, RAW, family.version)
        self._raw_topic = raw_topic
        self._offsets: dict[int, list[NDArray[np.int64]]] = defaultdict(list)
        self.sent = {"rerouted": RowsByRawOffset(), "augmented": RowsByRawOffset()}

    def add(self, records: Sequence[Any]) -> None:
        """Add records of raw."""
        by_partition: dict[int, list[int]] = defaultdict(list)
        for record in records:
            by_partition[record.partition].append(record.offset)
            if match := _SENT_BY_WORKER.fullmatch(header(record, "ce_id")):
                self._add_sent(record, match)
        for partition, offsets in by_partition.items():
            self._offsets[partition].append(np.array(offsets, dtype=np.int64))

    def offsets(self, partition: int) -> NDArray[np.int64]:
        """Return the offsets of the committed records of a partition, in order."""
        return np.concatenate([np.empty(0, np.int64), *self._offsets.get(partition, ())])

    def _add_sent(self, record: Any, match: re.Match[bytes]) -> None:
        source, rows = source_of(record, self._raw_topic), header(record, "feedmill-rows")
        try:
            ours = ForeignHeaders.parse(record.headers).ce_type == self._ce_type
        except RecordError:
            return
        if ours and source is not None and rows.isdigit() and len(rows) <= 9 and source[0] == int(match["partition"]):
            self.sent[match["why"].decode()].add(source, int(rows))
