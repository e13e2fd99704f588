"""Committed records on a real Kafka: every record below an end comes once, and every end is reached."""

from __future__ import annotations

import time
import uuid
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from broker.clients import Connection
from broker.committed import CommittedReader, committed_records, first_records, has_records
from broker.kept_clients import kept_clients
from broker.topics import Extent, ensure_topics, extents, topic_name, undecided
from schema.errors import BrokerError, RefineError
from tests.broker.recreation import create_again
from tests.broker.transactions import aborted, committed

WAIT_S = 30.0


def send(connection: Connection, topic: str, values: list[bytes], partition: int = 0) -> None:
    with closing(connection.producer()) as producer:
        for value in values:
            producer.send(topic, value, partition=partition).get(30)


def remove_before(connection: Connection, topic: str, offset: int, partition: int = 0) -> None:
    with closing(connection.admin()) as admin:
        admin.delete_records({TopicPartition(topic, partition): offset})


def values(connection: Connection, topic: str, ranges: dict[int, Extent] | None = None) -> list[bytes]:
    return [record.value for record in committed_records(connection, topic, ranges)]


def test_an_empty_topic_has_no_records(connection: Connection, raw: str) -> None:
    assert values(connection, raw) == []
    assert first_records(connection, raw, extents(connection, raw)) == {}


def test_a_missing_topic_is_an_error(connection: Connection) -> None:
    with pytest.raises(BrokerError, match="does not exist"):
        values(connection, f"{connection.settings.namespace}.reduction.raw")


def test_reading_ends_behind_an_aborted_transaction(
    connection: Connection, raw: str, transactional: KafkaProducer
) -> None:
    committed(transactional, raw, 0, b"kept")
    aborted(transactional, raw, 0)
    aborted(transactional, raw, 1)
    began = time.monotonic()
    assert values(connection, raw) == [b"kept"]
    assert first_records(connection, raw, extents(connection, raw)) == {0: 0}
    assert time.monotonic() - began < WAIT_S / 2, "it waited for records that never come"


def test_only_the_ranges_asked_for_are_read_and_each_in_order(connection: Connection, raw: str) -> None:
    for partition in range(3):
        send(connection, raw, [b"%d-%d" % (partition, number) for number in range(4)], partition)
    read = values(connection, raw, {0: Extent(0, 4), 2: Extent(1, 3), 3: Extent(0, 0)})
    assert [value for value in read if value.startswith(b"0")] == [b"0-0", b"0-1", b"0-2", b"0-3"]
    assert [value for value in read if value.startswith(b"2")] == [b"2-1", b"2-2"]
    assert len(read) == 6


def test_removed_offsets_are_left_out(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"0", b"1", b"2"])
    remove_before(connection, raw, 2)
    assert values(connection, raw) == [b"2"]
    remove_before(connection, raw, 3)
    assert values(connection, raw) == []


def test_offsets_that_are_removed_while_they_are_read_are_an_error(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"0", b"1", b"2"])
    with CommittedReader(connection) as reader:
        reader.start(raw, {0: Extent(0, 3)})
        remove_before(connection, raw, 2)
        with pytest.raises(OffsetOutOfRangeError):
            while reader.unread:
                assert reader.poll() == {}


def test_offsets_of_a_topic_that_was_created_again_are_an_error(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"0", b"1", b"2"])
    create_again(connection, raw)
    assert extents(connection, raw)[0] == Extent(0, 0)
    with CommittedReader(connection) as reader:
        reader.start(raw, {0: Extent(2, 3)})
        with pytest.raises(OffsetOutOfRangeError):
            while reader.unread:
                assert reader.poll() == {}


def test_each_end_is_reached_once_and_nothing_behind_it_is_returned(
    connection: Connection, raw: str, transactional: KafkaProducer
) -> None:
    for partition in (0, 1):
        for number in range(3):
            committed(transactional, raw, partition, b"%d" % number)
    first, second = (TopicPartition(raw, partition) for partition in range(2))
    with CommittedReader(connection) as reader:
        # The end of partition 0 lies between a record and its marker; partition 2 has no record.
        reader.start(raw, {0: Extent(0, 3), 1: Extent(2, 6), 2: Extent(0, 0)})
        assert reader.unread == {first: 0, second: 2}
        assert reader.offsets_left == 7
        read: list[tuple[int, int]] = []
        left = [reader.offsets_left]
        while reader.unread:
            for partition, records in reader.poll().items():
                assert records
                read += [(partition.partition, record.offset) for record in records]
            left.append(reader.offsets_left)
        assert sorted(read) == [(0, 0), (0, 2), (1, 2), (1, 4)]
        assert left == sorted(left, reverse=True)
        assert left[-1] == 0
        assert reader.poll(0.1) == {}


def test_a_reader_starts_again_at_other_offsets(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"%d" % number for number in range(6)])
    with CommittedReader(connection, max_poll_records=1) as reader:
        for start, end in ((0, 2), (4, 6), (1, 3), (5, 5)):
            read: list[int] = []
            reader.start(raw, {0: Extent(start, end)})
            while reader.unread:
                read += [record.offset for records in reader.poll().values() for record in records]
            assert read == list(range(start, end))


def test_a_finished_partition_gives_no_more_records(connection: Connection, raw: str) -> None:
    for partition in (0, 1):
        send(connection, raw, [b"x"] * 5, partition)
    places = [TopicPartition(raw, partition) for partition in (0, 1)]
    read = dict.fromkeys(places, 0)
    with CommittedReader(connection, max_poll_records=1) as reader:
        reader.start(raw, dict.fromkeys((0, 1), Extent(0, 5)))
        while reader.unread:
            for partition, records in reader.poll().items():
                read[partition] += len(records)
                if partition == places[0]:
                    reader.finish(partition)
    assert read == {places[0]: 1, places[1]: 5}


def test_a_reader_without_ends_follows_its_partitions(connection: Connection, raw: str) -> None:
    at = TopicPartition(raw, 0)
    with closing(CommittedReader(connection, silence_s=0.2)) as reader:
        assert reader.poll(0.1) == {}
        reader.follow({at: 0})
        began = time.monotonic()
        assert reader.poll(0.5) == {}
        assert reader.poll(0.5) == {}
        assert time.monotonic() - began >= 1.0
        send(connection, raw, [b"0", b"1"])
        read: list[bytes] = []
        while len(read) < 2:
            assert time.monotonic() - began < WAIT_S
            read += [record.value for records in reader.poll(0.5, max_records=1).values() for record in records]
        assert read == [b"0", b"1"]
        assert reader.positions == {at: 2}


def test_a_broker_that_sends_nothing_before_an_end_is_an_error(
    connection: Connection, raw: str, transactional: KafkaProducer
) -> None:
    committed(transactional, raw, 0)
    transactional.begin_transaction()
    transactional.send(raw, b"open", partition=0).get(30)
    with CommittedReader(connection, silence_s=1.0) as reader:
        reader.start(raw, {0: Extent(0, 3)})
        with pytest.raises(BrokerError, match=r"reduction\.raw could not be read for 1 s: run `feedmill doctor`"):
            while reader.unread:
                reader.poll(0.2)
    with CommittedReader(connection, silence_s=1.0, silent=RefineError) as reader:
        reader.start(raw, {0: Extent(0, 3)})
        with pytest.raises(RefineError, match=r"^\S+\.reduction\.raw/0 from offset 2$"):
            while reader.unread:
                reader.poll(0.2)
    transactional.abort_transaction()


def test_time_between_polls_is_no_silence(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"x"] * 3)
    with CommittedReader(connection, silence_s=1.0, max_poll_records=1) as reader:
        reader.start(raw, {0: Extent(0, 4)})
        for _ in range(2):
            assert reader.poll()
            time.sleep(1.1)
        assert reader.poll()
        assert reader.poll(0.1) == {}
        send(connection, raw, [b"late"])
        assert reader.poll(5.0)
        assert not reader.unread


def test_skipped_offsets_count_as_read(connection: Connection, raw: str) -> None:
    send(connection, raw, [b"%d" % number for number in range(4)])
    at = TopicPartition(raw, 0)
    with CommittedReader(connection, max_poll_records=1) as reader:
        reader.start(raw, {0: Extent(0, 4)})
        while reader.unread[at] < 1:
            reader.poll()
        reader.skip(at, 3)
        assert reader.offsets_left == 1
        assert [record.value for records in reader.poll(5.0).values() for record in records] == [b"3"]
        assert not reader.unread


def test_first_records_are_those_at_or_after_the_beginnings_and_before_the_ends(
    connection: Connection, raw: str, transactional: KafkaProducer
) -> None:
    for _ in range(3):
        committed(transactional, raw, 0)
    aborted(transactional, raw, 1)
    send(connection, raw, [b"x"], partition=1)
    ranges = {0: Extent(1, 6), 1: Extent(0, 2), 2: Extent(0, 0)}
    assert first_records(connection, raw, ranges) == {0: 2}
    assert first_records(connection, raw, {1: Extent(0, 3)}) == {1: 2}


def test_transaction_markers_do_not_count(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    committed(transactional, raw, 0)
    assert has_records(connection, raw, {0: 0, 1: 0}) == {0: True, 1: False}
    # The commit marker is at offset 1, so the end is 2 although there is no record to read.
    assert has_records(connection, raw, {0: 1}) == {0: False}


def test_aborted_records_do_not_count(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    for _ in range(5):
        aborted(transactional, raw, 0)
    assert extents(connection, raw)[0] == Extent(0, 10)
    assert has_records(connection, raw, {0: 0}) == {0: False}
    committed(transactional, raw, 0)
    assert has_records(connection, raw, {0: 0}) == {0: True}
    assert has_records(connection, raw, {0: 11}) == {0: False}


def test_uncommitted_record_does_not_count_yet(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    transactional.begin_transaction()
    transactional.send(raw, b"x", partition=2).get(30)
    assert has_records(connection, raw, {2: 0}) == {2: False}
    transactional.commit_transaction()
    assert has_records(connection, raw, {2: 0}) == {2: True}


def test_the_largest_record_counts_like_any_other(connection: Connection, raw: str) -> None:
    with closing(connection.producer()) as producer:
        producer.send(raw, b"x" * connection.settings.raw_record_max_bytes, partition=3).get(30)
    assert has_records(connection, raw, {3: 0}) == {3: True}


def test_position_before_the_first_kept_offset_counts_from_that_offset(connection: Connection, raw: str) -> None:
    with closing(connection.producer()) as producer:
        for _ in range(3):
            producer.send(raw, b"x", partition=0).get(30)
    with closing(connection.admin()) as admin:
        admin.delete_records({TopicPartition(raw, 0): 2})
    assert extents(connection, raw)[0] == Extent(2, 3)
    assert has_records(connection, raw, {0: 0}) == {0: True}
    with closing(connection.admin()) as admin:
        admin.delete_records({TopicPartition(raw, 0): 3})
    assert has_records(connection, raw, {0: 0}) == {0: False}


def test_ends_beyond_the_log_are_an_error_and_the_next_question_works(connection: Connection, raw: str) -> None:
    """A restarted broker may report smaller ends; a loop that asks again goes on after the error."""
    with kept_clients(connection) as kept:
        with pytest.raises(BrokerError, match="OffsetOutOfRange"):
            has_records(kept, raw, {0: 5}, {0: Extent(0, 10)})
        assert has_records(kept, raw, {0: 0}) == {0: False}


def test_a_kept_consumer_reads_the_same_positions_again(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", "raw")
    with closing(connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")) as producer:
        producer.init_transactions()
        for _ in range(5):
            producer.begin_transaction()
            for partition in range(4):
                producer.send(topic, value=b"x" * 1000, partition=partition)
            producer.commit_transaction()
    deadline = time.monotonic() + 30
    while undecided(connection, topic):
        assert time.monotonic() < deadline
    # Each record is followed by its transaction's marker.
    with kept_clients(connection) as kept:
        for position in (0, 9, 3, 10, 1, 9, 0, 8, 9):
            started = time.monotonic()
            has = has_records(kept, topic, dict.fromkeys(range(4), position))
            assert set(has.values()) == {position < 9}
            assert time.monotonic() - started < 30, "it waited for records that it had fetched before"
