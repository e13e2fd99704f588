"""Draining, against transaction markers, open transactions, rerouted rows and a ledger that is not folded."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka.structs import OffsetAndMetadata, TopicPartition

from broker.clients import Connection
from broker.topics import committed_positions, ensure_topics, topic_name
from schema import ledger
from schema.errors import DrainTimeoutError, UnknownFamilyError
from schema.record import LEDGER, RAW, Envelope, encode
from streams import drain as drain_module
from streams.coverage.client import open_coverage
from streams.drain import DrainProgress, drain
from streams.positions import position_group
from tests.streams.ledgers import FAMILY, entry, frame

NAME = FAMILY.name


class Refiner:
    """Makes the refine stage's transactions without refining: a raw record b"n" is sent to raw n more times."""

    def __init__(self, connection: Connection) -> None:
        ensure_topics(connection, [NAME])
        settings = connection.settings
        self.raw, self.ledger = (topic_name(settings, NAME, stage) for stage in (RAW, LEDGER))
        self.group = position_group(settings, NAME)
        self.producer = connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")
        self.producer.init_transactions()
        self.consumer = connection.consumer()
        self.partitions = [TopicPartition(self.raw, number) for number in range(settings.partitions)]
        self.consumer.assign(self.partitions)
        for partition in self.partitions:
            self.consumer.seek(partition, 0)
        self.entries = 0

    def write_raw(self, value: bytes, partition: int = 0, *, abort: bool = False) -> None:
        """One transaction that writes one record to raw, and commits or aborts."""
        self.producer.begin_transaction()
        self.producer.send(self.raw, value, partition=partition).get(timeout=30)
        if abort:
            self.producer.abort_transaction()
        else:
            self.producer.commit_transaction()

    def step(self, wait_s: float = 0.2) -> int:
        """Refine the records of one poll in one transaction; return the number of raw records."""
        polled = self.consumer.poll(timeout_ms=int(wait_s * 1000), max_records=3)
        records = [record for batch in polled.values() for record in batch]
        if not records:
            return 0
        self.producer.begin_transaction()
        entries = frame(entry(record.offset, rows_in=1, rows_clean=1) for record in records)
        envelope = Envelope(NAME, LEDGER, ledger.VERSION, run="r", chunk=0, part=0, rows=entries.height)
        self.producer.send(self.ledger, encode(entries), headers=envelope.headers(), partition=records[0].partition)
        for record in records:
            for left in range(int(record.value)):
                self.producer.send(self.raw, b"%d" % left, partition=(record.partition + 1 + left) % 4)
        positions = {batch[-1].partition: batch[-1].offset + 1 for batch in polled.values()}
        self.producer.send_offsets_to_transaction(
            {
                TopicPartition(self.raw, partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in positions.items()
            },
            self.group,
        )
        self.producer.commit_transaction()
        self.entries += len(records)
        return len(records)

    def all(self) -> None:
        """Refine until two polls in a row return nothing."""
        quiet = 0
        while quiet < 2:
            quiet = 0 if self.step() else quiet + 1

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()


@pytest.fixture
def refiner(connection: Connection) -> Iterator[Refiner]:
    created = Refiner(connection)
    yield created
    created.close()


def test_a_family_without_records_is_drained(connection: Connection) -> None:
    seen: list[DrainProgress] = []
    drain(connection, NAME, timeout_s=30, on_progress=seen.append)
    assert [progress.offsets_left for progress in seen] == [0]


def test_an_unknown_family_is_refused(connection: Connection) -> None:
    with pytest.raises(UnknownFamilyError):
        drain(connection, "nosuch", timeout_s=1)


def test_unrefined_records_and_the_missing_worker_are_named(connection: Connection, refiner: Refiner) -> None:
    refiner.write_raw(b"0", partition=2)
    seen: list[DrainProgress] = []
    with pytest.raises(DrainTimeoutError, match=r"2 in partition 2; no worker is in the consumer group"):
        drain(connection, NAME, timeout_s=1, on_progress=seen.append)
    assert seen[-1].raw == {2: 2}


def test_markers_and_aborted_records_at_the_end_of_raw_are_not_waited_for(
    connection: Connection, refiner: Refiner
) -> None:
    refiner.write_raw(b"0", partition=1)
    refiner.write_raw(b"0", partition=1, abort=True)
    refiner.write_raw(b"0", partition=3, abort=True)
    refiner.all()
    positions = committed_positions(connection, refiner.group, refiner.raw)
    assert positions == {1: 1}, "the position is before a marker and an aborted record"
    drain(connection, NAME, timeout_s=30)
    with open_coverage(connection) as coverage:
        assert coverage.report(NAME)["entries"] == 1


def test_an_open_transaction_on_raw_is_waited_for(connection: Connection, refiner: Refiner) -> None:
    producer = connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(refiner.raw, b"0", partition=0).get(timeout=30)
    with pytest.raises(DrainTimeoutError, match="1 in partition 0"):
        drain(connection, NAME, timeout_s=0.5)
    producer.abort_transaction()
    producer.close()
    drain(connection, NAME, timeout_s=30)


def test_a_timeout_while_refining_moves_advises_more_time(connection: Connection, refiner: Refiner) -> None:
    for _ in range(200):
        refiner.write_raw(b"0")

    def moves(_: DrainProgress) -> None:
        before = committed_positions(connection, refiner.group, refiner.raw)
        refiner.step()
        while committed_positions(connection, refiner.group, refiner.raw) == before:
            pass

    with pytest.raises(DrainTimeoutError, match="refining moves: give it more time with --timeout"):
        drain(connection, NAME, timeout_s=8, on_progress=moves)


def test_drained_includes_rerouted_and_augmented_records(connection: Connection, refiner: Refiner) -> None:
    for number in range(20):
        refiner.write_raw(b"4", partition=number % 4)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            refiner.step(wait_s=0.05)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        drain(connection, NAME, timeout_s=120)
        with open_coverage(connection) as coverage:
            entries = coverage.report(NAME)["entries"]
    finally:
        stop.set()
        worker.join()
    # b"4" makes 2 ** 4 records in all, each of them refined once.
    assert entries == 20 * 16
    assert refiner.entries == entries, "nothing was refined after the drain"


def test_a_ledger_that_is_not_folded_is_named(
    connection: Connection, refiner: Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Standing:
        def positions(self, family: str) -> dict[int, int]:
            return {}

    @contextmanager
    def standing(_: Connection) -> Iterator[Standing]:
        yield Standing()

    refiner.write_raw(b"0", partition=1)
    refiner.all()
    monkeypatch.setattr(drain_module, "open_coverage", standing)
    started = time.monotonic()
    with pytest.raises(DrainTimeoutError, match=r"offsets left in ledger: 2 in partition 1; .*coverage service"):
        drain(connection, NAME, timeout_s=1)
    assert time.monotonic() - started < 20
