"""The topics of refined reductions, written by the test, so that a test can leave out or change any part."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import polars as pl
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from broker.clients import Connection
from broker.topics import committed_positions, ensure_topics, topic_name
from schema import ledger
from schema.family import CELL_AXIS, axis_codes, cell_label
from schema.record import CLEAN, LEDGER, RAW, REJECTED, STAGES, Envelope, encode
from schema.reduction import FAMILY
from streams.audit.report import AuditReport
from streams.audit.run import audit
from streams.positions import position_group
from tests import reductions
from tests.streams.ledgers import entry, frame


def coverage_of(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The coverage counts of clean rows, counted one row at a time."""
    codes = axis_codes(FAMILY.derive(rows.with_columns(record=pl.lit(0, pl.UInt32))), FAMILY.axes)
    counted: Counter[tuple[str, str]] = Counter()
    for row in codes.iter_rows(named=True):
        bins = {axis.name: axis.bins[row[axis.name]] for axis in FAMILY.axes if row[axis.name] >= 0}
        counted.update(bins.items())
        if all(name in bins for name in FAMILY.cell_axes):
            counted[CELL_AXIS, cell_label({name: bins[name] for name in FAMILY.cell_axes})] += 1
    return [{"axis": axis, "bin": bin_, "rows": rows} for (axis, bin_), rows in counted.items()]


def rows_of(partition: int, count: int, partitions: int = 4) -> pl.DataFrame:
    """`count` valid rows that belong in this partition."""
    every = reductions.valid(20 * partitions * (count + 1))
    return every.filter(pl.col("example_id") % partitions == partition).head(count)


class RefinedTopics:
    """Writes raw records and the outputs that a worker would write, with the changes that a test asks for."""

    def __init__(self, connection: Connection) -> None:
        ensure_topics(connection, [FAMILY.name])
        self.connection = connection
        self.names = {stage: topic_name(connection.settings, FAMILY.name, stage) for stage in STAGES}
        self.producer = connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")
        self.producer.init_transactions()
        self._positions: dict[int, int] = {}

    def raw(self, rows: pl.DataFrame, partition: int = 0) -> int:
        """Write one raw record; return its offset."""
        headers = Envelope(FAMILY.name, RAW, 1, "r", 0, 0, rows.height).headers()
        return self._transact([(RAW, partition, encode(rows), headers)])[0]

    def refine(
        self,
        offset: int,
        clean: pl.DataFrame,
        partition: int = 0,
        *,
        rejected: int = 0,
        letters: int = 0,
        entries: int = 1,
        position: int | None = None,
        **claims: Any,
    ) -> None:
        """Write the transaction for one raw record: clean rows, rejected rows, ledger entries, and the position.

        `claims` are false values for columns of the entry.
        """
        source = f"{self.names[RAW]}/{partition}/{offset}"
        records = []
        if clean.height:
            headers = Envelope(FAMILY.name, CLEAN, 1, "r", 0, f"{partition}.{offset}.clean", clean.height, source)
            records.append((CLEAN, partition, encode(clean), headers.headers()))
        if rejected:
            rows = reductions.valid(rejected, 5000).with_columns(
                reasons=pl.lit(["duplicate"]), source_offset=pl.lit(offset, pl.Int64)
            )
            headers = Envelope(FAMILY.name, REJECTED, 1, "r", 0, f"{partition}.{offset}.rejected", rejected, source)
            records.append((REJECTED, partition, encode(rows), headers.headers()))
        connect = {"topic": self.names[RAW], "partition": str(partition), "offset": str(offset)}
        letter = [(f"__connect.errors.{name}", value.encode()) for name, value in connect.items()]
        records += [(REJECTED, partition, b"x", letter)] * letters
        truth = {
            "source_partition": partition,
            "rows_in": clean.height + rejected + letters,
            "rows_clean": clean.height,
            "rows_rejected": rejected + letters,
            "coverage": coverage_of(clean),
        }
        if entries:
            ledger_entries = frame([entry(offset, **{**truth, **claims})] * entries)
            headers = Envelope(FAMILY.name, LEDGER, ledger.VERSION, "r", 0, f"{partition}.{offset}.ledger", entries)
            records.append((LEDGER, partition, encode(ledger_entries), headers.headers()))
        self._transact(records, {partition: offset + 1 if position is None else position})

    def whole(self, rows: pl.DataFrame, partition: int = 0, **refined: Any) -> int:
        """Write a raw record and refine it; return its offset."""
        offset = self.raw(rows, partition)
        self.refine(offset, rows, partition, **refined)
        return offset

    def _transact(self, records: list[Any], positions: dict[int, int] | None = None) -> list[int]:
        self.producer.begin_transaction()
        sent = [
            self.producer.send(self.names[stage], value, partition=partition, headers=headers)
            for stage, partition, value, headers in records
        ]
        offsets = [future.get(timeout=30).offset for future in sent]
        if positions:
            committed = {
                TopicPartition(self.names[RAW], partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in positions.items()
            }
            group = position_group(self.connection.settings, FAMILY.name)
            self.producer.send_offsets_to_transaction(committed, group)
        self.producer.commit_transaction()
        self._positions.update(positions or {})
        return offsets

    def settle(self) -> None:
        """Wait until the last position can be read, because its marker is written after the commit returns."""
        group = position_group(self.connection.settings, FAMILY.name)
        deadline = time.monotonic() + 30
        while committed_positions(self.connection, group, self.names[RAW]) != self._positions:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def moved(self, partition: int, position: int) -> None:
        """Store that another process has moved a position."""
        self._positions[partition] = position

    def audited(self) -> AuditReport:
        """Audit the written topics."""
        self.settle()
        return audit(self.connection, FAMILY)

    def close(self) -> None:
        self.producer.close()
