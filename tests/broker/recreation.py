"""Delete a topic and create it again, for tests."""

from __future__ import annotations

import time

from broker.clients import Connection
from broker.topics import delete_topics, ensure_topics, topic_id
from schema.errors import BrokerError

_WITHIN_S = 60.0


def create_again(connection: Connection, topic: str, family: str = "reduction") -> None:
    """Delete `topic`, and create it again without records; returns once it has its new id."""
    old_id, new_id = topic_id(connection, topic), None
    delete_topics(connection, [topic])
    deadline = time.monotonic() + _WITHIN_S
    # Kafka answers before it has deleted the topic, so the old topic may still exist for a moment.
    while new_id in (None, old_id):
        assert time.monotonic() < deadline, f"{topic} still has its old id"
        try:
            ensure_topics(connection, [family])
            new_id = topic_id(connection, topic)
        except BrokerError:
            time.sleep(0.1)
