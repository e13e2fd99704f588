"""Topics on a real Kafka: creation, extents, positions, and the records that a read_committed consumer gets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from broker.clients import Connection
from broker.topics import (
    Extent,
    committed_positions,
    ensure_topics,
    extents,
    list_topics,
    partition_count,
    topic_limits,
    topic_name,
)
from schema.errors import BrokerError
from schema.record import STAGES
from schema.settings import Settings
from tests.broker.transactions import committed


def test_ensuring_topics_twice_changes_nothing(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    first = list_topics(connection)
    ensure_topics(connection, ["reduction"])
    assert list_topics(connection) == first
    assert first == sorted(topic_name(connection.settings, "reduction", stage) for stage in STAGES)


def test_several_threads_may_ensure_topics_at_the_same_time(connection: Connection) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ensure_topics(connection, ["reduction"]), range(4)))
    assert len(list_topics(connection)) == len(STAGES)


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


def test_retractions_have_one_partition(connection: Connection, raw: str) -> None:
    assert partition_count(connection, topic_name(connection.settings, "reduction", "retractions")) == 1


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


def test_no_topic_makes_the_broker_decompress_batches(settings: Settings) -> None:
    assert {topic_limits(settings, stage)["compression.type"] for stage in STAGES} == {"producer"}
