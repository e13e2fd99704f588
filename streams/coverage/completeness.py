"""Whether the ledger has an entry for every raw record that was refined: else its fold is too low, however it balances.

A ledger that was shortened, or deleted and created again, balances in itself. So what was refined is asked elsewhere:

1. read the positions that workers have committed for raw;
2. fold the ledger to its end. Positions and entries are committed together, so every record below 1 has its entry now;
3. records of raw below the positions, and before the first entry or after the last one, have none.

An entry that is missing in the middle is not looked for: `feedmill audit` compares record by record.
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
# A broker that gives nothing for so many polls is asked another time.
_PATIENCE_POLLS = 20

Stretch = tuple[int, int]


def refined_positions(connection: Connection, family: str) -> dict[int, int]:
    """Return {raw partition: the offset below which every record was refined} (step 1).

    Positions of a raw topic that was deleted do not count.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    raw = topic_name(connection.settings, family, RAW)
    own_id = topic_id(connection, raw)
    committed = group_offsets(connection, position_group(connection.settings, family), raw)
    return {number: found.offset for number, found in committed.items() if found.metadata in ("", own_id)}


def note_missing(connection: Connection, store: CoverageStore, family: str, refined: Mapping[int, int]) -> bool:
    """Note in `store` which entries the ledger should have and has not; return whether that is certain (step 3).

    It is not while a transaction of the ledger is undecided: the entries that seem to be missing may be in it.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    missing = missing_entries(connection, family, refined, store.accounted(family))
    if missing and undecided(connection, topic_name(connection.settings, family, LEDGER)):
        return False
    store.set_missing(family, missing)
    return True


def missing_entries(
    connection: Connection, family: str, refined: Mapping[int, int], accounted: Mapping[int, Stretch]
) -> dict[int, Stretch]:
    """Return {raw partition: [first, next) of refined records without an entry}; whole partitions are absent (step 3).

    Args:
        refined: as `refined_positions` gave it, before the ledger was folded to its end.
        accounted: {raw partition: [first, next) of the records whose entries are folded}.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    raw = topic_name(connection.settings, family, RAW)
    held = extents(connection, raw)
    suspects: dict[int, Stretch] = {}
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


def _first_records(connection: Connection, topic: str, stretches: Mapping[int, Stretch]) -> dict[int, int]:
    """Return the offset of the first committed record from the beginning of each stretch on, if there is one."""
    found: dict[int, int] = {}
    if not stretches:
        return found
    with closing(connection.consumer(max_poll_records=1)) as consumer:
        # One after another: a transaction's markers are no records, so most stretches are none at all.
        for number, (begin, end) in stretches.items():
            at = TopicPartition(topic, number)
            consumer.assign([at])
            consumer.seek(at, begin)
            for _ in range(_PATIENCE_POLLS):
                records = consumer.poll(timeout_ms=_POLL_MS).get(at, ())
                if records:
                    found[number] = int(records[0].offset)
                if records or consumer.position(at) >= end:
                    break
    return found
