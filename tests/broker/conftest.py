"""Fixtures for tests of topics: a raw topic, and a transactional producer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaProducer

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name


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
