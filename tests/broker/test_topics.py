"""Topics on a real Kafka: creation, extents, positions, and the records that a read_committed consumer gets."""

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
    """The name of a raw topic with four empty partitions."""
    ensure_topics(connection, ["reduction"])
    return topic_name(connection.settings, "reduction", "raw")


@pytest.fixture
def transactional(connection: Connection) -> Iterator[KafkaProducer]:
    """A transactional producer that is ready for use."""
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


def test_several_threads_may_ensure_topics_at_the_same_time(connection: Connection) -> None:
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
    options = {
        name: {key: entry["value"] for key, entry in configs.items()} for name, configs in described["topic"].items()
    }
    assert options[raw]["retention.ms"] == options[raw]["retention.bytes"] == "-1"
    assert options[raw]["cleanup.policy"] == "delete"
    assert options[requests]["cleanup.policy"] == "compact"


def test_the_error_about_a_refused_replication_factor_names_its_setting(connection: Connection) -> None:
    demanding = connection.settings.model_copy(update={"replication_factor": 3})
    with pytest.raises(BrokerError, match="FEEDMILL_REPLICATION_FACTOR"):
        ensure_topics(Connection(demanding, connection.servers), ["reduction"])


def test_unknown_stage_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="no stage"):
        topic_name(connection.settings, "reduction", "cooked")


def test_a_missing_topic_is_an_error(connection: Connection) -> None:
    for ask in (partition_count, extents):
        with pytest.raises(BrokerError, match="does not exist"):
            ask(connection, f"{connection.settings.namespace}.reduction.raw")


def test_topics_have_the_number_of_partitions_in_the_settings(connection: Connection, raw: str) -> None:
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


def test_position_sent_in_a_transaction_is_visible_after_its_commit(
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


def test_no_topic_makes_the_broker_decompress_batches(settings: Settings) -> None:
    assert {topic_limits(settings, stage)["compression.type"] for stage in STAGES} == {"producer"}
