"""Check that the ledger has an entry for every raw record that was refined; otherwise coverage is too low.

A ledger that was shortened, or deleted and created again, still balances. So the check compares it with the workers'
positions:

1. read the positions that workers have committed for raw (`streams.positions.bound_positions`);
2. fold the ledger to its end. Positions and entries are committed together, so every record below 1 has its entry now;
3. raw records below the positions have no entry if they lie before the first entry or after the last one.

Entries missing in the middle are not searched here: `feedmill audit` compares record by record.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.clients import Connection
from broker.committed import first_records
from broker.topics import Extent, extents, topic_name, undecided
from schema.record import LEDGER, RAW
from streams.coverage.store import CoverageStore

OffsetRange = tuple[int, int]


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
        refined: from `bound_positions`, read before the ledger was folded to its end.
        accounted: {raw partition: [first, next) of the records whose entries are folded}.

    Raises:
        BrokerError: the broker does not answer.
    """
    raw = topic_name(connection.settings, family, RAW)
    held = extents(connection, raw)
    suspects: dict[int, Extent] = {}
    for number, position in refined.items():
        begin = held[number].begin
        first, end = accounted.get(number, (position, begin))
        if begin < min(first, position):
            suspects[number] = Extent(begin, position if number not in accounted else min(first, position))
        elif max(end, begin) < position:
            suspects[number] = Extent(max(end, begin), position)
    first_missing = first_records(connection, raw, suspects)
    return {number: (offset, suspects[number].end) for number, offset in first_missing.items()}
