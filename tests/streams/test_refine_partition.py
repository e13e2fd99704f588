"""The owner of a partition: the groups it commits, the records it refuses, and that it commits nothing once dead."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from broker.clients import Connection
from schema.reduction import FAMILY
from schema.settings import Settings
from streams.refine import group_judge
from streams.refine.decode import RawRecord
from streams.refine.partition import Phase
from streams.refine.pieces import pieces
from tests.integration import workers
from tests.streams.partitions import (
    ROWS,
    Owner,
    raw_records,
    run,
    two_partitions,
    with_raw,
)

RECORDS = 6


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return two_partitions(settings)


@pytest.fixture
def ready(connection: Connection) -> Connection:
    """Raw with six records of twenty valid rows in partition 0."""
    return with_raw(connection, RECORDS, RECORDS)


def refused_rows(connection: Connection) -> dict[int, str]:
    """{raw offset: reason} of the dead letters."""
    _, letters = workers.rejected(connection)
    return {
        int(letter.headers["__connect.errors.offset"]): letter.headers["feedmill-reason"].decode() for letter in letters
    }


def test_groups_are_committed_one_after_another(ready: Connection) -> None:
    records = raw_records(ready)

    async def work() -> None:
        owner = Owner(ready)
        refiner = await owner.open()
        for record in records:
            assert await refiner.refine([record])
        await refiner.close()
        assert owner.deaths == []
        assert refiner.position == records[-1].offset + 1

    run(work)
    assert workers.check_accounts(ready)["rows_clean"] == RECORDS * ROWS


@pytest.mark.parametrize("failing", [1, 2, RECORDS])
def test_nothing_commits_past_a_group_whose_commit_failed(
    ready: Connection, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = raw_records(ready)
    commits = 0
    commit = AIOKafkaProducer.commit_transaction

    async def fails_once(self: AIOKafkaProducer) -> None:
        nonlocal commits
        commits += 1
        if commits == failing:
            raise KafkaTimeoutError
        await commit(self)

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", fails_once)

    async def work() -> None:
        owner = Owner(ready)
        refiner = await owner.open()
        for record in records:
            await refiner.refine([record])
        await refiner.close()
        assert [type(refiner.error) for refiner in owner.deaths] == [KafkaTimeoutError]
        assert refiner.phase is Phase.DEAD
        assert refiner.position == records[failing - 1].offset
        # The next owner goes on where the last commit ended.
        after = Owner(ready)
        refiner = await after.open()
        assert refiner.position == records[failing - 1].offset
        assert await refiner.refine(records)
        await refiner.close()
        assert after.deaths == []

    run(work)
    assert workers.check_accounts(ready)["rows_clean"] == RECORDS * ROWS


def test_a_record_after_a_missing_one_is_not_taken(ready: Connection) -> None:
    records = raw_records(ready)

    async def work() -> None:
        refiner = await Owner(ready).open()
        assert await refiner.refine(records[:2])
        # Offset 2 is missing: no later record may be taken, and the caller must seek.
        assert not await refiner.refine(records[3:5])
        assert refiner.taken == records[2].offset
        assert await refiner.refine(records[1:])
        await refiner.close()

    run(work)
    assert workers.check_accounts(ready)["rows_clean"] == RECORDS * ROWS


def refined_but_the_fourth(connection: Connection, records: Sequence[RawRecord]) -> list[Any]:
    """Refine the records in three groups, check that only the fourth is refused, and return the dead letters."""

    async def work() -> None:
        owner = Owner(connection)
        refiner = await owner.open()
        for group in (records[:2], records[2:5], records[5:]):
            assert await refiner.refine(group)
        await refiner.close()
        assert owner.deaths == []

    run(work)
    sums = workers.check_accounts(connection)
    assert sums["rows_clean"] == (RECORDS - 1) * ROWS
    assert refused_rows(connection) == {records[3].offset: group_judge.UNPROCESSABLE}
    return workers.rejected(connection)[1]


def test_a_record_that_breaks_judging_becomes_a_dead_letter_and_the_others_go_on(
    ready: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = raw_records(ready)
    judge = group_judge.judge
    poison = set(workers_ids(records[3]))

    def breaks(frame: pl.DataFrame, *others: Any) -> Any:
        verdicts = judge(frame, *others)
        # After the state has been touched, as a fault in accounting would be.
        if poison & set(frame["example_id"].to_list()):
            raise ZeroDivisionError("poison")
        return verdicts

    monkeypatch.setattr(group_judge, "judge", breaks)

    (letter,) = refined_but_the_fourth(ready, records)
    assert letter.value == records[3].value
    assert b"ZeroDivisionError: poison" in letter.headers["__connect.errors.exception.message"]


@pytest.mark.parametrize("enough_for", [1, 0])
def test_a_group_too_large_for_the_memory_is_judged_record_by_record_and_no_record_is_blamed(
    ready: Connection, monkeypatch: pytest.MonkeyPatch, enough_for: int
) -> None:
    records = raw_records(ready)
    read_group = group_judge.read_group

    def limited(group: Sequence[RawRecord], *others: Any) -> Any:
        if len(group) > enough_for:
            raise pa.ArrowMemoryError("malloc of size 370944 failed")
        return read_group(group, *others)

    monkeypatch.setattr(group_judge, "read_group", limited)
    owner = Owner(ready)

    async def work() -> None:
        refiner = await owner.open()
        await refiner.refine(records)
        await refiner.close()

    run(work)
    assert [type(refiner.error) for refiner in owner.deaths] == ([] if enough_for else [pa.ArrowMemoryError])
    assert refused_rows(ready) == {}
    if enough_for:
        assert workers.check_accounts(ready)["rows_clean"] == RECORDS * ROWS
    else:
        assert workers.clean(ready).is_empty()


@pytest.mark.parametrize("error", [MessageSizeTooLargeError, TypeError])
def test_a_record_that_breaks_sending_becomes_a_dead_letter_and_the_others_go_on(
    ready: Connection, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    records = raw_records(ready)
    send = AIOKafkaProducer.send
    value = records[3].value

    async def breaks(self: AIOKafkaProducer, topic: str, *args: Any, **options: Any) -> Any:
        # Its clean record cannot be sent, nor a dead letter with its bytes.
        source = dict(options["headers"]).get("feedmill-source", b"").decode()
        first, _, last = source.rpartition("/")[2].partition("-")
        is_inside = first.isdecimal() and int(first) <= records[3].offset <= int(last or first)
        if (topic.endswith("clean") and is_inside) or args[0] == value:
            raise error("too large")
        return await send(self, topic, *args, **options)

    monkeypatch.setattr(AIOKafkaProducer, "send", breaks)

    (letter,) = refined_but_the_fourth(ready, records)
    assert letter.value == b""


def workers_ids(record: RawRecord) -> list[int]:
    from schema.record import decode

    assert record.value is not None
    return decode(record.value, FAMILY.wire, 10**6)["example_id"].to_list()


def test_a_fenced_partition_dies_and_may_be_opened_by_a_new_owner(ready: Connection) -> None:
    records = raw_records(ready)

    async def work() -> None:
        first, second = Owner(ready), Owner(ready)
        refiner = await first.open()
        await refiner.refine(records[:1])
        await refiner.settle()
        other = await second.open()
        await refiner.refine(records[1:3])
        await refiner.settle()
        assert refiner.is_dead
        assert refiner.is_fenced
        await other.refine(records[1:3])
        await other.close()
        await refiner.close()
        assert second.deaths == []

    run(work)
    entries = workers.entries(ready)["source_offset"].to_list()
    assert sorted(entries) == [record.offset for record in records[:3]]


@pytest.mark.parametrize("seed", range(3))
def test_every_record_is_accounted_for_once_despite_failures_and_repeats(
    ready: Connection, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random groups: repeated, stale and with holes; commits that fail before or after writing; dead owners."""
    chance = random.Random(seed)
    records = raw_records(ready)
    commit = AIOKafkaProducer.commit_transaction

    async def unsure(self: AIOKafkaProducer) -> None:
        kind = chance.random()
        if kind < 0.2:
            raise KafkaTimeoutError
        await commit(self)
        if kind < 0.4:
            # Committed, but the answer never came.
            raise KafkaTimeoutError

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", unsure)

    async def work() -> None:
        owner = Owner(ready)
        refiner = await owner.open()
        for _ in range(60):
            if refiner.is_dead:
                await refiner.close()
                owner = Owner(ready)
                refiner = await owner.open()
            begin = chance.randrange(RECORDS)
            await refiner.refine(records[begin : begin + chance.randint(1, 3)])
            if chance.random() < 0.3:
                await refiner.settle()
        monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", commit)
        await refiner.close()
        refiner = await Owner(ready).open()
        await refiner.refine(records)
        await refiner.close()

    run(work)
    assert workers.check_accounts(ready)["rows_clean"] == RECORDS * ROWS


def test_pieces_hold_all_records_in_order_and_bound_their_memory() -> None:
    values = [b"{}\n" * count for count in (1, 50_000, 3, 200_000, 1, 1)]
    records = [RawRecord("raw", 0, offset, 0, value) for offset, value in enumerate(values)]
    cut = list(pieces(records, row_bytes=100, limit_bytes=50_000_000))
    assert [record.offset for piece in cut for record in piece] == list(range(6))
    assert [len(piece) for piece in cut] == [3, 1, 2]
