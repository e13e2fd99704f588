"""A fetched message carries the true offset that it follows, even if fetches fail or another task seeks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka.structs import TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from broker.clients import Connection
from broker.holdups import member_count
from broker.topics import ensure_topics, topic_name
from schema.record import RAW
from schema.reduction import FAMILY
from streams import faust_transport
from streams.faust_transport import PositionedConsumer, PositionedThread

RECORDS = 30
Work = Callable[[PositionedThread, aiokafka.AIOKafkaConsumer, TopicPartition], Coroutine[Any, Any, None]]


@pytest.fixture
def topic(connection: Connection) -> str:
    ensure_topics(connection, [FAMILY.name])
    name = topic_name(connection.settings, FAMILY.name, RAW)
    with closing(connection.producer(linger_ms=0)) as producer:
        for number in range(RECORDS):
            producer.send(name, value=str(number).encode(), partition=0).get(30)
    return name


class Transport:
    """Records the partitions that should be opened again."""

    def __init__(self) -> None:
        self.reopened: list[TopicPartition] = []

    def ask_to_reopen(self, tp: TopicPartition) -> None:
        self.reopened.append(tp)


def thread_of(consumer: aiokafka.AIOKafkaConsumer) -> PositionedThread:
    """The consumer thread's code, run by the test's own loop."""
    thread = PositionedThread.__new__(PositionedThread)
    thread._next, thread.held = {}, {}
    thread._consumer = consumer
    thread.consumer = SimpleNamespace(flow_active=True)
    thread.transport = Transport()
    return thread


def run(connection: Connection, topic: str, work: Work) -> None:
    async def all_of_it() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            **connection.aiokafka_options(), enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=100
        )
        await consumer.start()
        try:
            tp = TopicPartition(topic, 0)
            consumer.assign([tp])
            await work(thread_of(consumer), consumer, tp)
        finally:
            await consumer.stop()

    asyncio.run(all_of_it())


async def fetched(thread: PositionedThread, consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition) -> list[Any]:
    fetched = await thread._fetch_records(consumer, {tp}, timeout=1.0, max_records=7)
    return list(fetched.get(tp, ()))


def test_each_record_follows_the_one_before_or_the_offset_sought(connection: Connection, topic: str) -> None:
    async def work(thread: PositionedThread, consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition) -> None:
        assert await fetched(thread, consumer, tp) == []
        for begin in (0, 20, 5):
            await thread.seek_here(tp, begin)
            records: list[Any] = []
            while not records or records[-1].offset < RECORDS - 1:
                records += await fetched(thread, consumer, tp)
            assert [record.offset for record in records] == list(range(begin, RECORDS))
            assert [record.follows for record in records] == list(range(begin, RECORDS))

    run(connection, topic, work)


def failing_fetches(monkeypatch: pytest.MonkeyPatch, fail: Iterator[bool]) -> None:
    """Make ordinary fetches take records out of the client's buffers, and then fail."""
    fetch = AIOKafkaConsumerThread._fetch_records

    async def fetch_and_fail(self: Any, *arguments: Any, **options: Any) -> Any:
        fetched = await fetch(self, *arguments, **options)
        if fetched and next(fail):
            raise RuntimeError("the fetched records are lost")
        return fetched

    monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", fetch_and_fail)


def test_records_of_a_failed_fetch_are_fetched_again(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_fetches(monkeypatch, iter([True, False, True, *[False] * 100]))

    async def work(thread: PositionedThread, consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition) -> None:
        await thread.seek_here(tp, 0)
        records: list[Any] = []
        while not records or records[-1].offset < RECORDS - 1:
            records += await fetched(thread, consumer, tp)
        assert [record.offset for record in records] == list(range(RECORDS))
        assert [record.follows for record in records] == list(range(RECORDS))

    run(connection, topic, work)


def test_a_seek_in_the_middle_of_a_fetch_leaves_follows_true(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition is assigned again while its records are still being read one by one."""
    failing_fetches(monkeypatch, iter([True, *[False] * 100]))

    async def work(thread: PositionedThread, consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition) -> None:
        await thread.seek_here(tp, 20)
        take = consumer._fetcher.fetched_records
        taken = 0

        async def take_and_seek(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            fetched = await take(*arguments, **options)
            if options.get("max_records") == 1 and fetched:
                taken += 1
                if taken == 3:
                    asyncio.get_running_loop().create_task(thread.seek_here(tp, 4))
            return fetched

        monkeypatch.setattr(consumer._fetcher, "fetched_records", take_and_seek)
        records: list[Any] = []
        while not records or records[-1].offset < RECORDS - 1:
            records += await fetched(thread, consumer, tp)
        assert {record.offset for record in records} >= set(range(4, RECORDS))
        # No record lies between a record and the offset that it follows.
        assert all(record.follows == record.offset for record in records)

    run(connection, topic, work)


def test_a_position_that_is_no_longer_in_the_topic_is_opened_again(connection: Connection, topic: str) -> None:
    async def work(thread: PositionedThread, consumer: aiokafka.AIOKafkaConsumer, tp: TopicPartition) -> None:
        await thread.seek_here(tp, RECORDS + 100)
        for _ in range(20):
            assert await fetched(thread, consumer, tp) == []
            if tp in thread.held:
                break
        assert thread.transport.reopened == [tp]
        await thread.seek_here(tp, RECORDS - 1)
        records = await fetched(thread, consumer, tp)
        assert [record.offset for record in records] == [RECORDS - 1]

    run(connection, topic, work)


def test_a_worker_without_partitions_stays_in_the_group(
    connection: Connection, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spare worker waits to take over; without a fetch its client would leave the consumer group."""
    monkeypatch.setattr(faust_transport, "_MAX_POLL_INTERVAL_MS", 2_000)
    group = f"{topic}.workers"

    async def all_of_it() -> None:
        thread = PositionedThread.__new__(PositionedThread)
        thread.app = SimpleNamespace(conf=SimpleNamespace(id=group))
        consumer = thread._create_worker_consumer(SimpleNamespace(connection=connection))
        thread._consumer = consumer
        positioned = PositionedConsumer.__new__(PositionedConsumer)
        positioned._thread, positioned.app = thread, SimpleNamespace(client_only=False)
        positioned._active_partitions, positioned.not_waiting_next_records = set(), asyncio.Event()
        monkeypatch.setattr(PositionedConsumer, "sleep", lambda _, seconds: asyncio.sleep(seconds))
        await consumer.start()
        try:
            consumer.subscribe([topic])
            deadline = time.monotonic() + 60
            while not await asyncio.to_thread(member_count, connection, group):
                assert time.monotonic() < deadline
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert await positioned._wait_next_records(1.0) == ({}, set())
            assert await asyncio.to_thread(member_count, connection, group) == 1
        finally:
            await consumer.stop()

    asyncio.run(all_of_it())
