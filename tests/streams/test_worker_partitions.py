"""The partitions of one worker: opening, cancelling and rebuilding at the same time do not mix."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from broker.clients import Connection
from broker.kept_clients import kept_clients
from schema.reduction import FAMILY
from schema.settings import Settings
from streams.refine import group_judge, partition, worker_partitions
from streams.refine.group_judge import GroupProgress
from streams.refine.partition import PartitionRefiner, Phase
from streams.refine.worker_partitions import WorkerPartitions
from tests.integration import workers
from tests.streams.partitions import PARTITION, ROWS, raw_records, rows_of, run, send_raw, two_partitions, with_raw

RECORDS = 4


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return two_partitions(settings)


@pytest.fixture
def ready(connection: Connection) -> Connection:
    """Raw with the records A, B, A, B in partition 0: the second two are duplicates."""
    return with_raw(connection, RECORDS, 2)


class Watched:
    """The partitions of a worker, with the deaths and progress that they report."""

    def __init__(self, connection: Connection) -> None:
        self.deaths: list[PartitionRefiner] = []
        self.progress: list[GroupProgress] = []
        self.owned = WorkerPartitions(connection, FAMILY, self.progress.append, self.deaths.append)


def test_a_partition_that_rebuilds_its_own_state_is_not_rebuilt_by_the_worker(
    ready: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rebuilds at once: the older one would lack the rows that were committed after it was read."""
    records = raw_records(ready)
    send = AIOKafkaProducer.send
    sent = 0

    async def fails_once(self: AIOKafkaProducer, *args: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == 1:
            raise MessageSizeTooLargeError("once")
        return await send(self, *args, **options)

    monkeypatch.setattr(AIOKafkaProducer, "send", fails_once)
    rebuilding, second_asked = threading.Event(), threading.Event()
    states = partition.states

    def waits(*args: Any) -> Any:
        rebuilding.set()
        second_asked.wait(3.0)
        return states(*args)

    monkeypatch.setattr(partition, "states", waits)
    real_states = worker_partitions.states
    asked = 0

    def late(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        found = real_states(*args)
        if asked > 1:
            second_asked.set()
            # This rebuild ends after the first group was committed record by record.
            threading.Event().wait(4.0)
        return found

    monkeypatch.setattr(worker_partitions, "states", late)

    async def work() -> None:
        watched = Watched(ready)
        await watched.owned.assign(frozenset([PARTITION]), 1)
        await watched.owned.refine(records[:2])
        await asyncio.to_thread(rebuilding.wait, 30)
        assert await watched.owned.refine(records[2:]) == {}
        await watched.owned.close()
        assert watched.deaths == []

    run(work)
    sums = workers.check_accounts(ready)
    assert (sums["rows_clean"], sums["rows_rejected"]) == (2 * ROWS, 2 * ROWS)


def test_a_partition_is_ready_after_records_that_were_judged_alone(
    ready: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase that stayed `COMMITTING` would look like a commit that never ends."""
    records = raw_records(ready)
    judge = group_judge.judge

    def breaks(frame: Any, *others: Any) -> Any:
        if frame.height > ROWS:
            raise ZeroDivisionError("poison")
        return judge(frame, *others)

    monkeypatch.setattr(group_judge, "judge", breaks)

    async def work() -> None:
        watched = Watched(ready)
        await watched.owned.assign(frozenset([PARTITION]), 1)
        await watched.owned.refine(records)
        await watched.owned.settle()
        refiner = watched.owned.refiners[PARTITION]
        assert refiner.position == records[-1].offset + 1
        assert refiner.phase is Phase.READY
        await watched.owned.close()
        assert watched.deaths == []

    run(work)
    assert workers.check_accounts(ready)["rows_clean"] == 2 * ROWS


def test_rows_committed_just_before_a_fault_are_remembered_after_it(
    ready: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is answered before its markers are written, and clean is read only as far as they are."""
    rounds = 12
    rows = rows_of(PARTITION, rounds * ROWS, 2, first=10_000)
    send_raw(ready, [rows.slice(number // 2 * ROWS, ROWS) for number in range(2 * rounds)])
    records = raw_records(ready)[RECORDS:]
    judge = group_judge.judge
    fails = False

    def breaks(*arguments: Any) -> Any:
        nonlocal fails
        if fails:
            fails = False
            raise ZeroDivisionError("once")
        return judge(*arguments)

    monkeypatch.setattr(group_judge, "judge", breaks)
    # Nothing is found at fault when it is judged again.
    monkeypatch.setattr(group_judge.Judge, "faults_of", lambda *_: {})

    async def work() -> None:
        nonlocal fails
        watched = Watched(kept)
        await watched.owned.assign(frozenset([PARTITION]), 1)
        await watched.owned.refine(raw_records(ready)[:RECORDS])
        for number in range(rounds):
            await watched.owned.refine([records[2 * number]])
            fails = True
            await watched.owned.refine([records[2 * number + 1]])
        await watched.owned.close()
        assert watched.deaths == []

    with kept_clients(ready) as kept:
        run(work)
    sums = workers.check_accounts(ready)
    assert (sums["rows_clean"], sums["rows_rejected"]) == ((2 + rounds) * ROWS, (2 + rounds) * ROWS)
