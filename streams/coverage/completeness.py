"""Check that the ledger has an entry for every raw record that was refined; otherwise coverage is too low.

A ledger that was shortened, or deleted and created again, still balances. So the check compares it with the workers'
positions:

1. read the positions that workers have committed for raw;
2. fold the ledger to its end. Positions and entries are committed together, so every record below 1 has its entry now;
3. raw records below the positions have no entry if they lie before the first entry or after the last one.

Entries missing in the middle are not searched here: `feedmill audit` compares record by record.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import extents, group_offsets, topic_id, topic_name, undecided
from schema.record import LEDGER, RAW
from streams.coverage.store import CoverageStore
from streams.positions import position_group

_POLL_MS = 500
# After this many empty polls the check gives up until the next time.
_PATIENCE_POLLS = 20

OffsetRange = tuple[int, int]


def refined_positions(connection: Connection, family: str) -> dict[int, int]:
    """Return {raw partition: the offset below which every record was refined} (step 1).

    Positions of a raw topic that was deleted do not count.

    Raises:
        BrokerError: the broker does not answer.
    """
    raw = topic_name(connection.settings, family, RAW)
    own_id = topic_id(connection, raw)
    committed = group_offsets(connection, position_group(connection.settings, family), raw)
    return {number: each.offset for number, each in committed.items() if each.metadata in ("", own_id)}


def note_missing(connection: Connection, store: CoverageStore, family: str, refined: Mapping[int, int]) -> bool:
    """Store which entries the ledger lacks (step 3); return False if that is not certain.

    It is uncertain while a ledger transaction is undecided, because the missing entries may be in that transaction.

    Raises:
        BrokerError: the broker does not answer.
    """
    missing = missing_entries(connection, family, refined, store.accounted(family))
    if missing and undecided(connection, topic_name(connection.settings, family, LEDGER)):
        return False
    store.set_missing(family, missing)
    return True


def missing_entries(
    connection: Connection, family: str, refined: Mapping[int, int], accounted: Mapping[int, OffsetRange]
) -> dict[int, OffsetRange]:
    """Return {raw partition: [first, next) of refined records without an entry} (step 3); others are absent.

    Args:
        refined: from `refined_positions`, read before the ledger was folded to its end.
        accounted: {raw partition: [first, next) of the records whose entries are folded}.

    Raises:
        BrokerError: the broker does not answer.
    """
    raw = topic_name(connection.settings, family, RAW)
    held = extents(connection, raw)
    suspects: dict[int, OffsetRange] = {}
    for number, position in refined.items():
        begin = held[number].begin
        first, end = accounted.get(number, (position, begin))
        if begin < min(first, position):
            suspects[number] = (begin, position if number not in accounted else min(first, position))
        elif max(end, begin) < position:
            suspects[number] = (max(end, begin), position)
    return {
        number: (offset, suspects[number][1])
        for number, offset in _first_records(connection, raw, suspects).items()
        if offset < suspects[number][1]
    }


def _first_records(connection: Connection, topic: str, ranges: Mapping[int, OffsetRange]) -> dict[int, int]:
    """Return the offset of the first committed record at or after the beginning of each range, if there is one."""
    first: dict[int, int] = {}
    if not ranges:
        return first
    with closing(connection.consumer(max_poll_records=1)) as consumer:
        # One range after another: most ranges hold only transaction markers and no record.
        for number, (begin, end) in ranges.items():
            at = TopicPartition(topic, number)
            consumer.assign([at])
            consumer.seek(at, begin)
            for _ in range(_PATIENCE_POLLS):
                records = consumer.poll(timeout_ms=_POLL_MS).get(at, ())
                if records:
                    first[number] = int(records[0].offset)
                if records or consumer.position(at) >= end:
                    break
    return first
