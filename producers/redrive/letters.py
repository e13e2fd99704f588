"""Send dead letters to raw again, each once, with the bytes and the key of the raw record.

Takes the letters of one reason, as read from `rejected`. Every record that goes to raw names its letter in the header
`feedmill-redrive-of`. So raw itself shows which letters were sent, even if a redrive was killed half way.
A record that is rejected again becomes a new letter, which can be sent once, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from broker.clients import Connection
from broker.holdups import open_transactions
from broker.topics import Extent, extents, topic_id, topic_name, write_offsets
from producers.redrive.stage_records import OnProgress, stage_records
from producers.sink import RecordSender, raw_layout
from schema.dead_letter import REDRIVE_HEADER, original_headers, rejected_rows
from schema.envelope import header_text
from schema.errors import BrokerError, BrokerUnavailableError
from schema.family import Family
from schema.record import RAW, REJECTED

# Causes for which a letter is not sent; keys of the report.
SENT_BEFORE = "sent_before"
NO_BYTES = "no_bytes"
TOO_LARGE = "over_raw_record_max_bytes"


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """Where a dead letter is stored in `rejected`, and the size of its bytes."""

    partition: int
    offset: int
    size: int

    @classmethod
    def of(cls, record: Any) -> FoundLetter:
        """Return the place and the size of a Kafka record of `rejected`."""
        return cls(record.partition, record.offset, len(record.value or b""))


def sendable_letters(
    connection: Connection, family: Family, letters: Sequence[FoundLetter], on_progress: OnProgress | None = None
) -> tuple[list[FoundLetter], Counter[str]]:
    """Return the letters that can be sent, in order, and how many cannot, by cause.

    Raises:
        BrokerError: raw cannot be read to its end, for instance because of an open transaction.
    """
    limit_bytes = connection.settings.raw_record_max_bytes
    left_out: Counter[str] = Counter()
    wanted = []
    for letter in letters:
        if not letter.size or letter.size > limit_bytes:
            left_out[TOO_LARGE if letter.size else NO_BYTES] += 1
        else:
            wanted.append(letter)
    if wanted:
        before = _sent_before(connection, family, on_progress)
        own_id = topic_id(connection, topic_name(connection.settings, family.name, REJECTED))
        fresh = [letter for letter in wanted if _name(own_id, letter.partition, letter.offset) not in before]
        left_out[SENT_BEFORE] += len(wanted) - len(fresh)
        wanted = fresh
    # The plus drops causes with a count of 0.
    return wanted, +left_out


def send_letters(connection: Connection, family: Family, run: str, letters: Sequence[FoundLetter]) -> int:
    """Send these letters to raw and return how many were sent: original bytes, key, headers and partition.

    Raises:
        BrokerError: a topic cannot be read; DeliveryError: raw did not take a record.
        ProducerError: retention removed a letter meanwhile.
    """
    if not letters:
        return 0
    partitions = raw_layout(connection, family).partitions
    own_id = topic_id(connection, topic_name(connection.settings, family.name, REJECTED))
    with RecordSender(connection, family, run) as sender:
        for record in stage_records(connection, family, REJECTED, ranges=_ranges(letters)):
            name = _name(own_id, record.partition, record.offset)
            sender.send(
                record.value,
                [*original_headers(record.headers), (REDRIVE_HEADER, name.encode())],
                # A letter is in the partition of its raw record; raw may have been recreated with fewer partitions.
                record.partition % partitions,
                rejected_rows(record.value, record.headers),
                record.key,
            )
    return sender.records


def _sent_before(connection: Connection, family: Family, on_progress: OnProgress | None) -> set[str]:
    """Return the names of the letters that raw holds, up to the last record that was written before this call.

    A record behind an open transaction can be read only when that transaction ends. Reading waits for the end, because
    to skip the record would be to send its letter a second time.
    """
    topic = topic_name(connection.settings, family.name, RAW)
    ends = write_offsets(connection, topic)
    begins = {partition: held.begin for partition, held in extents(connection, topic).items()}
    ranges = [(partition, Extent(begins.get(partition, 0), end)) for partition, end in sorted(ends.items())]
    try:
        names = [
            header_text(record.headers, REDRIVE_HEADER)
            for record in stage_records(connection, family, RAW, on_progress, ranges)
        ]
    except BrokerUnavailableError as error:
        for transaction in open_transactions(connection, topic):
            raise BrokerError(
                f"{topic} cannot be read to its end because of {transaction}: no dead letter was sent; end that "
                "producer, or wait until Kafka aborts its transaction, then redrive again"
            ) from error
        raise
    return {name for name in names if name}


def _name(rejected_id: str, partition: int, offset: int) -> str:
    """Return the text that names a letter: offsets alone would also fit the letters of a recreated topic."""
    return f"{rejected_id}/{partition}/{offset}"


def _ranges(letters: Iterable[FoundLetter]) -> list[tuple[int, Extent]]:
    """Return (partition, offsets) for each run of neighbouring letters; the letters are in order."""
    ranges: list[tuple[int, Extent]] = []
    for letter in letters:
        partition, last = ranges[-1] if ranges else (-1, Extent(0, 0))
        if (partition, last.end) == (letter.partition, letter.offset):
            ranges[-1] = (partition, Extent(last.begin, letter.offset + 1))
        else:
            ranges.append((letter.partition, Extent(letter.offset, letter.offset + 1)))
    return ranges
