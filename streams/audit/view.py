"""The offsets up to which an audit reads, chosen so that running workers cause no false faults.

A transaction's markers reach its partitions one after another. So the audit takes its offsets in this order:

1. the positions that workers have committed for raw;
2. the end of the ledger: the write offset now, once every transaction below it is decided. Every raw record below the
   positions of 1 has its entry there;
3. the ends of clean, rejected and raw, taken in the same way. Every row that an entry of 2 claims is there.

Records refined after 1 may have rows in the topics of 3 without an entry in 2, so these are not compared.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from broker.clients import Connection
from broker.topics import Extent, committed_positions, extents, topic_name, write_offsets
from schema.errors import AuditError
from schema.record import CLEAN, LEDGER, RAW, REJECTED
from streams.positions import position_group

# The broker aborts a killed worker's transaction after a minute, and looks for such transactions every ten seconds.
_UNDECIDED_LIMIT_S = 90.0
_LOOK_INTERVAL_S = 0.05


@dataclass(frozen=True)
class View:
    """The offset range of every topic that an audit reads.

    Attributes:
        positions: {raw partition: next offset to refine}; a partition without a commit is absent.
        stages: {stage: {partition: extent}} of ledger, clean, rejected and raw.
    """

    positions: Mapping[int, int]
    stages: Mapping[str, Mapping[int, Extent]]

    @property
    def offsets(self) -> int:
        """The number of offsets to read in all topics together, including transaction markers."""
        return sum(extent.end - extent.begin for stage in self.stages.values() for extent in stage.values())


def take_view(connection: Connection, family: str) -> View:
    """Return the offset ranges to read of the topics of `family`.

    Raises:
        AuditError: a transaction stays open for longer than the broker allows a worker.
        BrokerError: a topic does not exist.
    """
    raw = topic_name(connection.settings, family, RAW)
    positions = committed_positions(connection, position_group(connection.settings, family), raw)  # 1
    stages = {}
    for stage in (LEDGER, CLEAN, REJECTED, RAW):  # 2, 3
        stages[stage] = _settled(connection, topic_name(connection.settings, family, stage))
    return View(positions, stages)


def _settled(connection: Connection, topic: str) -> dict[int, Extent]:
    """Return the extents of `topic` up to its present write offsets, once all transactions below them are decided."""
    wanted = write_offsets(connection, topic)
    deadline = time.monotonic() + _UNDECIDED_LIMIT_S
    while True:
        present = extents(connection, topic)
        behind = [partition for partition, end in wanted.items() if present[partition].end < end]
        if not behind:
            return {partition: Extent(present[partition].begin, end) for partition, end in wanted.items()}
        if time.monotonic() > deadline:
            raise AuditError(
                f"{topic}/{behind[0]} has a transaction that stays open, and nothing after offset "
                f"{present[behind[0]].end} can be read: end its producer, then run the audit again"
            )
        time.sleep(_LOOK_INTERVAL_S)
