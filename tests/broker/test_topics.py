"""Topics on a real Kafka: creation, extents, positions and records as a read_committed consumer sees them."""

from __future__ import annotations

from broker.clients import Connection
from broker.topics import ensure_topics, list_topics


def test_ensuring_topics_twice_changes_nothing(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    first = list_topics(connection)
    ensure_topics(connection, ["reduction"])
    assert list_topics(connection) == first
    assert len(first) == 5
