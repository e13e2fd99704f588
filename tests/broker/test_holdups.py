"""Causes that block a topic's readers are named: an open transaction, or a consumer group without members."""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from broker.clients import Connection
from broker.holdups import member_count, open_transactions
from broker.topics import ensure_topics, topic_name
from schema.errors import DrainTimeoutError
from schema.record import RAW
from streams.drain import drain
from streams.positions import worker_group
from tests.consumers.records import transaction


def test_drain_names_the_open_open_transactionthat_blocks_it(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    raw = topic_name(connection.settings, "reduction", RAW)
    assert open_transactions(connection, raw) == []
    with transaction(connection, abort=True) as producer:
        producer.send(raw, b"{}", partition=2).get(30)
        (open_transaction,) = open_transactions(connection, raw)
        assert (open_transaction.partition, open_transaction.offset) == (2, 0)
        assert (open_transaction.transactional_id or "").startswith("test-")
        with pytest.raises(DrainTimeoutError, match=re.escape(str(open_transaction)[:90])) as caught:
            drain(connection, "reduction", 0.5)
    assert "end that producer" in str(caught.value)
    assert "worker" not in str(caught.value)


def test_drain_reports_a_missing_worker_only_if_none_runs(connection: Connection) -> None:
    ensure_topics(connection, ["reduction"])
    raw = topic_name(connection.settings, "reduction", RAW)
    with closing(connection.producer()) as producer:
        producer.send(raw, b"{}", partition=0).get(30)
    assert member_count(connection, worker_group(connection.settings)) == 0
    with pytest.raises(DrainTimeoutError, match="no worker is in the consumer group: start `feedmill worker`"):
        drain(connection, "reduction", 0.5)
    group = worker_group(connection.settings)
    with closing(connection.consumer(group_id=group, auto_offset_reset="earliest")) as member:
        member.subscribe([raw])
        for _ in range(100):
            member.poll(timeout_ms=100)
            if member.assignment():
                break
        assert member_count(connection, worker_group(connection.settings)) == 1
        with pytest.raises(DrainTimeoutError, match=r"though 1 worker\(s\) of the consumer group may run") as caught:
            drain(connection, "reduction", 0.5)
    assert "start `feedmill worker`" not in str(caught.value)
