"""Topics of examples: raw, clean or rejected rows up to the last committed record, from any producer.

Rows that are retracted when reading begins are left out, and a warning says so.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import polars as pl

from broker.clients import Connection
from broker.retractions import retracted_ids, retraction_bound
from broker.topics import extents, topic_name
from consumers.compare.rows import ROWS_AT_ONCE, Rows, rows_of_lines
from consumers.reading import Record, TopicReader
from consumers.sequence.blocks import order_of
from schema.dead_letter import REASON_HEADER, is_dead_letter, rejected_rows
from schema.envelope import header_text
from schema.errors import RecordError, ReplayError
from schema.family import Family
from schema.json_rows import lines_of
from schema.record import ARROW_STREAM, RETRACTIONS, ForeignHeaders, decode
from schema.retractions import is_retracted

# Offsets read from a partition before the next partition's turn, so that a topic's first rows come from all partitions.
_BLOCK_OFFSETS = 16
# The broker accepts only far smaller records; this limit bounds the memory that a damaged record can claim.
_MAX_ROWS = 10_000_000

_log = logging.getLogger(__name__)


class TopicSource:
    """The rows of a topic that are not retracted, from its first offset to the last stable one when reading begins.

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
            ReplayError: retention removed records before they were read, or a retraction cannot be decoded.
        """
        retractions = topic_name(self._connection.settings, family.name, RETRACTIONS)
        bound = retraction_bound(self._connection, retractions)
        ids = retracted_ids(self._connection, retractions, bound, ReplayError)
        blocks = order_of(extents(self._connection, self._topic), _BLOCK_OFFSETS, None)
        frames: list[pl.DataFrame] = []
        refused: Counter[str] = Counter()
        gathered, warned = 0, False
        with TopicReader(self._connection, self._topic, ReplayError) as reader:
            for _, record in reader.records(blocks):
                try:
                    rows = _rows(record, family)
                except RecordError as error:
                    rows = Rows(pl.DataFrame(schema=family.wire), {error.reason: 1})
                kept = rows.frame.filter(~is_retracted(rows.frame, ids))
                if kept.height < rows.frame.height and not warned:
                    warned = True
                    _log.warning("rows of %s that are retracted are left out", self._topic)
                frames.append(kept)
                refused.update(rows.refused)
                gathered += kept.height + sum(rows.refused.values())
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
