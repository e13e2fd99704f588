"""Topics of examples: raw, clean or rejected rows up to the last committed record, from any producer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import polars as pl

from broker.clients import Connection
from broker.topics import extents
from consumers.compare.rows import ROWS_AT_ONCE, Rows, rows_of_lines
from consumers.reading import Record, TopicReader
from consumers.sequence.blocks import order_of
from schema.dead_letter import REASON_HEADER, is_dead_letter, rejected_rows
from schema.envelope import header_text
from schema.errors import RecordError, ReplayError
from schema.family import Family
from schema.json_rows import lines_of
from schema.record import ARROW_STREAM, ForeignHeaders, decode

# Offsets read from a partition before the next partition's turn, so that a topic's first rows come from all partitions.
_BLOCK_OFFSETS = 16
# The broker accepts only far smaller records; this limit bounds the memory that a damaged record can claim.
_MAX_ROWS = 10_000_000


class TopicSource:
    """The rows of a topic, from its first offset to the last stable one when reading begins.

    Args:
        connection: the broker that holds the topic.
        topic: its full name.
        family: the family in its name.
    """

    def __init__(self, connection: Connection, topic: str, family: str) -> None:
        self._connection = connection
        self._topic = topic
        self._family = family

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._topic

    def families(self) -> list[str]:
        """Return the one family of the topic."""
        return [self._family]

    def rows(self, family: Family) -> Iterator[Rows]:
        """Yield the rows, partitions taking turns; records without readable rows are counted by reason.

        Raises:
            BrokerError: the topic is gone, or the broker cannot be read.
            ReplayError: retention removed records before they were read.
        """
        blocks = order_of(extents(self._connection, self._topic), _BLOCK_OFFSETS, None)
        frames: list[pl.DataFrame] = []
        refused: Counter[str] = Counter()
        gathered = 0
        with TopicReader(self._connection, self._topic, ReplayError) as reader:
            for _, record in reader.records(blocks):
                try:
                    rows = _rows(record, family)
                except RecordError as error:
                    rows = Rows(pl.DataFrame(schema=family.wire), {error.reason: 1})
                frames.append(rows.frame)
                refused.update(rows.refused)
                gathered += len(rows)
                if gathered >= ROWS_AT_ONCE:
                    yield Rows(pl.concat(frames), refused)
                    frames, refused, gathered = [], Counter(), 0
        if frames:
            yield Rows(pl.concat(frames), refused)


def _rows(record: Record, family: Family) -> Rows:
    """Return the rows of one record.

    Raises:
        RecordError: the record holds no readable row.
    """
    if is_dead_letter(record.headers):
        reason = header_text(record.headers, REASON_HEADER)
        # A dead letter counts as many rows as it has lines.
        rows = rejected_rows(record.value, record.headers)
        return Rows(pl.DataFrame(schema=family.wire), {"dead_letter" if reason is None else reason: rows})
    headers = ForeignHeaders.parse(record.headers)
    if headers.ce_type is not None and headers.ce_type[2] != family.version:
        raise RecordError("unknown_schema_version", f"version {headers.ce_type[2]} of {family.name} is not known here")
    if headers.content_type == ARROW_STREAM:
        return Rows(decode(record.value, family.wire, _MAX_ROWS, may_be_empty=headers.says_empty))
    return rows_of_lines(lines_of(record.value), family)
