"""Whether a topic is still the same, and holds the offsets that were asked for."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka import TopicPartition

from broker.clients import Connection
from broker.held_offsets import require_offsets, require_unchanged
from broker.topics import Extent, ensure_topics, identified_extents, topic_id, topic_name
from schema.errors import BrokerError, FeedError, ReplayError
from tests.broker.recreation import create_again


@pytest.fixture
def clean(connection: Connection) -> str:
    """The name of a clean topic with three records in partition 0."""
    ensure_topics(connection, ["reduction"])
    topic = topic_name(connection.settings, "reduction", "clean")
    with closing(connection.producer()) as producer:
        for _ in range(3):
            producer.send(topic, b"x", partition=0).get(30)
    return topic


def test_a_topic_that_holds_the_offsets_is_unchanged(connection: Connection, clean: str) -> None:
    own_id, held = identified_extents(connection, clean)
    assert require_unchanged(connection, clean, own_id, held, FeedError) == held
    # Reading can start at the end, where the next record will be.
    assert require_unchanged(connection, clean, own_id, {0: Extent(3, 3)}, FeedError) == held


def test_removed_offsets_are_named_with_what_the_topic_holds(connection: Connection, clean: str) -> None:
    own_id, held = identified_extents(connection, clean)
    with closing(connection.admin()) as admin:
        admin.delete_records({TopicPartition(clean, 0): 2})
    with pytest.raises(
        ReplayError, match=r"clean/0: offset 0 was asked for, but the topic holds 2 to 3: retention removed the offsets"
    ):
        require_unchanged(connection, clean, own_id, held, ReplayError)


def test_offsets_beyond_the_end_are_named(clean: str) -> None:
    with pytest.raises(FeedError, match=r"clean/1: offset 5 was asked for, .* holds 0 to 4: the topic was created"):
        require_offsets(clean, {0: Extent(0, 1), 1: Extent(2, 5)}, dict.fromkeys((0, 1), Extent(0, 4)), FeedError)


def test_a_topic_that_was_created_again_is_an_error_even_if_it_holds_the_offsets(
    connection: Connection, clean: str
) -> None:
    old_id = topic_id(connection, clean)
    create_again(connection, clean)
    with pytest.raises(ReplayError, match="clean was created again since the run read it: its rows are gone"):
        require_unchanged(connection, clean, old_id, {0: Extent(0, 0)}, ReplayError)


def test_a_missing_topic_is_an_error(connection: Connection) -> None:
    with pytest.raises(BrokerError, match="does not exist"):
        require_unchanged(connection, f"{connection.settings.namespace}.reduction.clean", "id", {}, ReplayError)


def test_a_topic_with_fewer_partitions_was_created_again(connection: Connection, clean: str) -> None:
    with pytest.raises(FeedError, match="clean was created again"):
        require_unchanged(connection, clean, topic_id(connection, clean), {4: Extent(0, 0)}, FeedError)
