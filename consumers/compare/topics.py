"""Topics of examples: raw, clean or rejected rows up to what is committed, whoever wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import polars as pl

from broker.clients import Connection
from broker.topics import extents
from consumers.compare.rows import ROWS_AT_ONCE, Rows, rows_of_lines
from consumers.reading import Record, TopicReader
from consumers.sequence.blocks import order_of
from schema.dead_letter import rejected_rows
from schema.envelope import HEADER_MAX_CHARS
from schema.errors import RecordError, ReplayError
from schema.family import Family
from schema.json_rows import lines_of
from schema.record import ARROW_STREAM, ForeignHeaders, decode

# Offsets read of a partition before the next has its turn, so that the first rows of a topic are of all of them.
_BLOCK_OFFSETS = 16
# What the broker takes is far smaller; this only bounds what a damaged record can make us allocate.
_MAX_ROWS = 10_000_000
# A dead letter says why it is none in these headers, which are Kafka Connect's.
_DEAD_LETTER = "__connect.errors."
_REASON = "feedmill-reason"


class TopicSource:
    """The rows of a topic, from its first offset to the last that is stable when the reading begins.

    Args:
        connection: the broker that holds it.
        topic: its full name.
        family: that its name tells.
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
        """Yield the rows, partitions taking turns; records that hold none are counted by reason.

        Raises:
            BrokerError: the topic is gone, or the broker cannot be read; ReplayError: retention took what was to be
                read.
        """
        blocks = order_of(extents(self._connection, self._topic), _BLOCK_OFFSETS, None)
        frames: list[pl.DataFrame] = []
        refused: Counter[str] = Counter()
        held = 0
        with TopicReader(self._connection, self._topic, ReplayError) as reader:
            for _, record in reader.records(blocks):
                try:
                    rows = _rows(record, family)
                except RecordError as error:
                    rows = Rows(pl.DataFrame(schema=family.wire), {error.reason: 1})
                frames.append(rows.frame)
                refused.update(rows.refused)
                held += len(rows)
                if held >= ROWS_AT_ONCE:
                    yield Rows(pl.concat(frames), refused)
                    frames, refused, held = [], Counter(), 0
        if frames:
            yield Rows(pl.concat(frames), refused)


def _rows(record: Record, family: Family) -> Rows:
    """Return the rows of one record.

    Raises:
        RecordError: it holds none.
    """
    said = {name: value for name, value in record.headers if value is not None}
    if any(name.startswith(_DEAD_LETTER) for name in said):
        reason = said.get(_REASON, b"dead_letter").decode("utf-8", "replace")[:HEADER_MAX_CHARS]
        # A letter stands for as many rows as it has lines.
        return Rows(pl.DataFrame(schema=family.wire), {reason: rejected_rows(record.value, list(said.items()))})
    headers = ForeignHeaders.parse(record.headers)
    if headers.ce_type is not None and headers.ce_type[2] != family.version:
        raise RecordError("unknown_schema_version", f"version {headers.ce_type[2]} of {family.name} is not known here")
    if headers.content_type == ARROW_STREAM:
        return Rows(decode(record.value, family.wire, _MAX_ROWS, may_be_empty=headers.says_empty))
    return rows_of_lines(lines_of(record.value), family)
