"""Topics on a real Kafka: creation, extents, positions, and records as a read_committed consumer sees them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from broker.clients import Connection
from broker.kept_clients import kept_clients
from broker.topics import (
    Extent,
    committed_positions,
    ensure_topics,
    extents,
    has_records,
    list_topics,
    partition_count,
    topic_limits,
    topic_name,
    undecided,
)
from schema.errors import BrokerError
from schema.record import STAGES
from schema.settings import Settings


@pytest.fixture
def raw(connection: Connection) -> str:
    """The name of a raw topic of four empty partitions."""
    ensure_topics(connection, ["reduction"])
    return topic_name(connection.settings, "reduction", "raw")


@pytest.fixture
def transactional(connection: Connection) -> Iterator[KafkaProducer]:
    """A transactional producer, ready."""
    with closing(connection.producer(transactional_id=connection.settings.namespace)) as producer:
        producer.init_transactions()
        yield producer


def committed(producer: KafkaProducer, topic: str, partition: int) -> None:
    producer.begin_transaction()
    producer.send(topic, b"x", partition=partition).get(30)
    producer.commit_transaction()


def aborted(producer: KafkaProducer, topic: str, partition: int) -> None:
    producer.begin_transaction()
    producer.send(topic, b"x", partition=partition).get(30)
    producer.abort_transaction()


def test_ensuring_topics_twice_changes_nothing(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    first = list_topics(connection)
    ensure_topics(connection, ["reduction"])
    assert list_topics(connection) == first
    assert first == sorted(topic_name(connection.settings, "reduction", stage) for stage in STAGES)


def test_ensuring_topics_from_several_threads_at_once_makes_them_once(connection: Connection) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ensure_topics(connection, ["reduction"]), range(4)))
    assert len(list_topics(connection)) == 5


def test_topics_of_another_namespace_are_not_listed(connection: Connection) -> None:
    other = Connection(
        connection.settings.model_copy(update={"namespace": connection.settings.namespace + "x"}), connection.servers
    )
    ensure_topics(connection, ["reduction"])
    assert list_topics(other) == []


def test_topic_keeps_records_for_ever_and_requests_are_compacted(connection: Connection, raw: str) -> None:
    requests = topic_name(connection.settings, "reduction", "requests")
    with closing(connection.admin()) as admin:
        described = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in (raw, requests)], config_filter="all"
        )
    found = {
        name: {key: entry["value"] for key, entry in configs.items()} for name, configs in described["topic"].items()
    }
    assert found[raw]["retention.ms"] == found[raw]["retention.bytes"] == "-1"
    assert found[raw]["cleanup.policy"] == "delete"
    assert found[requests]["cleanup.policy"] == "compact"


def test_unwelcome_partition_count_is_told_in_one_line(connection: Connection) -> None:
    demanding = connection.settings.model_copy(update={"replication_factor": 3})
    with pytest.raises(BrokerError, match="FEEDMILL_REPLICATION_FACTOR"):
        ensure_topics(Connection(demanding, connection.servers), ["reduction"])


def test_unknown_stage_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="no stage"):
        topic_name(connection.settings, "reduction", "cooked")


def test_topic_that_does_not_exist_is_told_in_one_line(connection: Connection) -> None:
    for ask in (partition_count, extents):
        with pytest.raises(BrokerError, match="does not exist"):
            ask(connection, f"{connection.settings.namespace}.reduction.raw")


def test_partitions_are_as_many_as_the_settings_say(connection: Connection, raw: str) -> None:
    assert partition_count(connection, raw) == connection.settings.partitions


def test_extent_ends_at_the_last_stable_offset(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    committed(transactional, raw, 0)
    assert extents(connection, raw)[0] == Extent(0, 2)  # the record and its marker
    transactional.begin_transaction()
    transactional.send(raw, b"open", partition=0).get(30)
    with closing(connection.producer()) as other:
        other.send(raw, b"behind the open transaction", partition=0).get(30)
    assert extents(connection, raw)[0] == Extent(0, 2)
    with closing(connection.consumer()) as consumer:
        partition = TopicPartition(raw, 0)
        assert consumer.end_offsets([partition]) == {partition: 2}
    transactional.commit_transaction()
    assert extents(connection, raw)[0] == Extent(0, 5)


def test_position_committed_in_a_transaction_is_seen_once_it_commits(
    connection: Connection, raw: str, transactional: KafkaProducer
) -> None:
    group = f"{connection.settings.namespace}-position"
    assert committed_positions(connection, group, raw) == {}
    transactional.begin_transaction()
    transactional.send_offsets_to_transaction({TopicPartition(raw, 1): OffsetAndMetadata(7, "", -1)}, group)
    transactional.abort_transaction()
    assert committed_positions(connection, group, raw) == {}
    transactional.begin_transaction()
    transactional.send_offsets_to_transaction({TopicPartition(raw, 1): OffsetAndMetadata(8, "", -1)}, group)
    transactional.commit_transaction()
    assert committed_positions(connection, group, raw) == {1: 8}


def test_transaction_markers_are_no_records(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    committed(transactional, raw, 0)
    assert has_records(connection, raw, {0: 0, 1: 0}) == {0: True, 1: False}
    # At 1 stands the commit marker: the end is 2, and yet nothing waits.
    assert has_records(connection, raw, {0: 1}) == {0: False}


def test_aborted_records_are_no_records(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    for _ in range(5):
        aborted(transactional, raw, 0)
    assert extents(connection, raw)[0] == Extent(0, 10)
    assert has_records(connection, raw, {0: 0}) == {0: False}
    committed(transactional, raw, 0)
    assert has_records(connection, raw, {0: 0}) == {0: True}
    assert has_records(connection, raw, {0: 11}) == {0: False}


def test_uncommitted_record_is_no_record_yet(connection: Connection, raw: str, transactional: KafkaProducer) -> None:
    transactional.begin_transaction()
    transactional.send(raw, b"x", partition=2).get(30)
    assert has_records(connection, raw, {2: 0}) == {2: False}
    transactional.commit_transaction()
    assert has_records(connection, raw, {2: 0}) == {2: True}


def test_largest_record_is_seen_like_any_other(connection: Connection, raw: str) -> None:
    with closing(connection.producer()) as producer:
        producer.send(raw, b"x" * connection.settings.raw_record_max_bytes, partition=3).get(30)
    assert has_records(connection, raw, {3: 0}) == {3: True}


def test_position_before_what_retention_left_counts_from_there(connection: Connection, raw: str) -> None:
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


def test_ends_that_the_broker_no_longer_knows_are_an_error_of_the_broker(connection: Connection, raw: str) -> None:
    """As after its restart: whoever asks again and again goes on with the next question."""
    with kept_clients(connection) as kept:
        with pytest.raises(BrokerError, match="OffsetOutOfRange"):
            has_records(kept, raw, {0: 5}, {0: Extent(0, 10)})
        assert has_records(kept, raw, {0: 0}) == {0: False}


def test_a_kept_consumer_looks_again_wherever_it_looked_before(connection: Connection) -> None:
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
    # Each record is followed by the marker that ends its transaction.
    with kept_clients(connection) as kept:
        for position in (0, 9, 3, 10, 1, 9, 0, 8, 9):
            started = time.monotonic()
            found = has_records(kept, topic, dict.fromkeys(range(4), position))
            assert set(found.values()) == {position < 9}
            assert time.monotonic() - started < 30, "it waited for records that it had fetched before"


def test_no_topic_makes_the_broker_decompress_what_others_sent(settings: Settings) -> None:
    assert {topic_limits(settings, stage)["compression.type"] for stage in STAGES} == {"producer"}
