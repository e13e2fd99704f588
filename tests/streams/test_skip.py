"""`feedmill skip` passes over unreadable records, and over no others."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError, TopicAuthorizationFailedError
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import committed_positions, ensure_topics, topic_id, topic_name
from schema import ledger
from schema.errors import RefineError, UsageError
from schema.record import RAW
from schema.reduction import FAMILY
from streams.positions import position_group
from streams.refine.transactions import PartitionProducer
from streams.skip import skip
from tests.integration import workers
from tests.streams.partitions import PARTITION, rows_of, send_raw

RECORDS = 3


@pytest.fixture
def ready(connection: Connection) -> Connection:
    """Raw with three records of five valid rows in partition 0."""
    ensure_topics(connection, [FAMILY.name])
    rows = rows_of(PARTITION, RECORDS * 5, connection.settings.partitions)
    send_raw(connection, [rows.slice(number * 5, 5) for number in range(RECORDS)])
    return connection


def positions(connection: Connection) -> dict[int, int]:
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    return committed_positions(connection, position_group(connection.settings, FAMILY.name), topic)


def position_of(connection: Connection) -> int:
    """The position, once it is seen: a transaction's markers come after the answer that it is committed."""
    deadline = time.monotonic() + 30
    while PARTITION not in (found := positions(connection)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found[PARTITION]


@pytest.mark.parametrize(
    "error", [TopicAuthorizationFailedError(["raw"]), OffsetOutOfRangeError({}), NoOffsetForPartitionError("raw")]
)
def test_an_error_that_is_not_about_a_record_skips_nothing(
    ready: Connection, error: KafkaError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(AIOKafkaConsumer, "getone", refused)
    with pytest.raises(RefineError, match=f"nothing was passed over .{type(error).__name__}"):
        skip(ready, FAMILY, PARTITION)
    assert positions(ready) == {}
    assert workers.records(ready, RAW)


def test_a_record_that_can_be_read_is_passed_over_only_on_request(ready: Connection) -> None:
    with pytest.raises(UsageError, match=r"at offset 0, can be read: .* give --to 1"):
        skip(ready, FAMILY, PARTITION)
    for to in (0, RECORDS + 1):
        with pytest.raises(UsageError, match=f"--to {to} passes over nothing"):
            skip(ready, FAMILY, PARTITION, to)
    assert positions(ready) == {}
    report = skip(ready, FAMILY, PARTITION, 2)
    assert (report.begin, report.end, report.skipped) == (0, 2, 2)
    assert position_of(ready) == 2
    assert sorted(workers.entries(ready)["source_offset"].to_list()) == [0, 1]


def test_a_refused_skip_leaves_the_owner_of_the_partition_alone(ready: Connection) -> None:
    topic = topic_name(ready.settings, FAMILY.name, RAW)

    async def work() -> None:
        owner = PartitionProducer(ready, FAMILY, PARTITION)
        await owner.start()
        with pytest.raises(UsageError, match="can be read"):
            await asyncio.to_thread(skip, ready, FAMILY, PARTITION)
        await owner.send([], 1, topic_id(ready, topic))
        await owner.stop()

    asyncio.run(work())
    assert position_of(ready) == 1


def test_offsets_that_retention_removed_before_a_skip_are_counted_as_lost(ready: Connection) -> None:
    topic = topic_name(ready.settings, FAMILY.name, RAW)
    with closing(ready.admin()) as admin:
        admin.delete_records({TopicPartition(topic, PARTITION): 2})
    report = skip(ready, FAMILY, PARTITION, 3)
    assert (report.begin, report.end) == (2, 3)
    assert position_of(ready) == 3
    entries = workers.entries(ready).sort("source_offset")
    assert entries["source_offset"].to_list() == [1, 2]
    assert entries["rows_lost"].to_list() == [2, 0]
    reasons = entries["reasons"].explode().struct.field("reason")
    assert reasons.to_list() == [ledger.LOST_TO_RETENTION, ledger.SKIPPED]
