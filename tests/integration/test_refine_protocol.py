"""The refine protocol against a real Kafka: nothing lost, nothing twice, despite kills and invalid input."""

from __future__ import annotations

import json
import random
import time
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from kafka import KafkaProducer

from broker.clients import Connection
from broker.topics import committed_positions, ensure_topics, topic_name
from producers.reduction.run import ReductionRun
from producers.run import generate, produce
from schema.record import RAW, Envelope, encode
from schema.reduction import FAMILY
from streams.positions import position_group
from tests import reductions
from tests.integration import workers

KILLS = 5
ARROW = Envelope("reduction", "raw", 1, "test", 0, 0, 1).headers()


@pytest.fixture
def ready(connection: Connection) -> Connection:
    ensure_topics(connection, [FAMILY.name])
    return connection


def send(connection: Connection, value: bytes | None, headers: list[tuple[str, bytes]], partition: int = 0) -> None:
    producer: KafkaProducer = connection.producer()
    topic = topic_name(connection.settings, FAMILY.name, RAW)
    # A record without a value needs a key.
    producer.send(topic, key=b"test", value=value, partition=partition, headers=headers).get(30)
    producer.close()


def test_all_that_is_produced_is_refined_and_accounted_for(ready: Connection, tmp_path: Path) -> None:
    run = ReductionRun(count=30_000, seed=11)
    produce(ready, run)
    log = tmp_path / "worker.log"
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    sums = workers.check_accounts(ready)
    assert sums["rows_in"] == 30_000
    assert sums["rows_rerouted"] == 0
    terms = pl.concat(list(generate(run)))["term"]
    assert set(workers.clean(ready)["term"]) == set(terms)
    rows, letters = workers.rejected(ready)
    assert letters == []
    assert rows["reasons"].explode().unique().to_list() == ["duplicate"]


def test_a_worker_killed_again_and_again_loses_nothing_and_doubles_nothing(
    ready: Connection, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rows = request.config.getoption("--kill-rows")
    settings = ready.settings.model_copy(update={"refine_group_records": 4})
    run = ReductionRun(count=rows, seed=12, workers=2)
    produce(ready, run)
    chance = random.Random(12)
    topic, group = topic_name(settings, FAMILY.name, RAW), position_group(settings, FAMILY.name)
    log = tmp_path / "worker.log"
    killed_under_way = 0
    for _ in range(KILLS):
        process = workers.spawn(settings, log)
        before = committed_positions(ready, group, topic)
        deadline = time.monotonic() + 60
        # A random moment after it has begun to commit: in a transaction, between two, or after the last.
        while committed_positions(ready, group, topic) == before:
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            if not _is_waiting(ready, before):
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.5))
        killed_under_way += _is_waiting(ready, committed_positions(ready, group, topic))
        workers.kill(process)
    assert killed_under_way > 0, "every kill came after the work was done: more rows are needed"
    with workers.worker(settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    sums = workers.check_accounts(ready)
    assert sums["rows_in"] == rows
    assert set(workers.clean(ready)["term"]) == set(pl.concat(list(generate(run)))["term"])


def _is_waiting(connection: Connection, positions: dict[int, int]) -> bool:
    from broker.committed import has_records
    from broker.topics import extents

    topic = topic_name(connection.settings, FAMILY.name, RAW)
    at = {p: positions.get(p, extent.begin) for p, extent in extents(connection, topic).items()}
    return any(has_records(connection, topic, at).values())


def test_two_workers_share_the_partitions_and_one_takes_over(ready: Connection, tmp_path: Path) -> None:
    settings = ready.settings.model_copy(update={"refine_group_records": 4})
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    first = workers.spawn(settings, first_log)
    with workers.worker(settings, second_log) as second:
        produce(ready, ReductionRun(count=40_000, seed=13))
        workers.kill(first)
        produce(ready, ReductionRun(count=40_000, seed=14))
        workers.wait_until_refined(ready, second, second_log)
    assert workers.check_accounts(ready)["rows_in"] == 80_000


def test_a_restarted_worker_still_knows_the_rows_in_clean(ready: Connection, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    for _ in range(2):
        produce(ready, ReductionRun(count=5_000, seed=15))
        with workers.worker(ready.settings, log) as process:
            workers.wait_until_refined(ready, process, log)
    sums = workers.check_accounts(ready)
    assert sums["rows_in"] == 10_000
    assert sums["rows_clean"] <= 5_000


def test_bad_input_is_rejected_with_its_reason_and_the_worker_goes_on(ready: Connection, tmp_path: Path) -> None:
    whole = encode(reductions.valid(4))
    other_version = [(name, v.replace(b".v1", b".v7")) for name, v in ARROW]
    other_family = [(name, v.replace(b"reduction.raw", b"poetry.raw")) for name, v in ARROW]
    bad: list[tuple[bytes | None, list[tuple[str, bytes]], str]] = [
        (b"\x00garbage", ARROW, "garbage"),
        (whole[:-25], ARROW, "garbage"),
        (b"[1]", [("content-type", b"application/json")], "not_an_object"),
        (whole, other_version, "unknown_schema_version"),
        (encode(reductions.valid(2).with_columns(pl.col("step_k").cast(pl.String))), ARROW, "wrong_type"),
        (encode(reductions.valid(1).head(0)), ARROW, "empty_batch"),
        (random.Random(1).randbytes(5_000_000), ARROW, "record_too_large"),
        (whole, other_family, "unknown_family"),
        (None, [], "empty_record"),
    ]
    for value, headers, _ in bad:
        send(ready, value, headers)
    send(ready, encode(reductions.valid(40, first=100)), ARROW)
    log = tmp_path / "worker.log"
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    sums = workers.check_accounts(ready)
    assert sums["rows_clean"] == 40
    assert sums["rows_rejected"] == len(bad)
    _, letters = workers.rejected(ready)
    assert [letter.value for letter in letters] == [value or b"" for value, _, _ in bad]
    assert [letter.headers["feedmill-reason"].decode() for letter in letters] == [reason for *_, reason in bad]
    for offset, letter in enumerate(letters):
        assert letter.headers["__connect.errors.topic"].decode() == topic_name(ready.settings, FAMILY.name, RAW)
        assert letter.headers["__connect.errors.partition"] == b"0"
        assert letter.headers["__connect.errors.offset"] == str(offset).encode()
    reasons = workers.entries(ready).select(pl.col("reasons").explode(empty_as_null=False)).unnest("reasons")
    assert reasons["rows"].sum() == len(bad)


def test_foreign_json_meets_the_same_rules_and_finds_its_partition(ready: Connection, tmp_path: Path) -> None:
    rows = [reductions.row(number) for number in range(60)]
    rows[7]["span_end"] = 9_999
    lines = b"\n".join(
        json.dumps({**row, "target_span": [row["span_start"], row["span_end"]]}).encode() for row in rows
    )
    send(ready, lines, [("content-type", b"application/json")])
    log = tmp_path / "worker.log"
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    sums = workers.check_accounts(ready)
    # Rerouted rows come in twice: once where they were sent, once where they belong.
    assert sums["rows_in"] == 60 + sums["rows_rerouted"]
    assert sums["rows_rerouted"] > 0
    assert set(workers.clean(ready)["term"]) == {row["term"] for row in rows[:7] + rows[8:]}
    rejected, _ = workers.rejected(ready)
    assert rejected["term"].to_list() == [rows[7]["term"]]
    assert "span_not_leftmost_outermost" in rejected["reasons"][0].to_list()


def test_a_position_that_kafka_forgot_is_read_from_the_ledger(ready: Connection, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    for seed in (16, 17):
        produce(ready, ReductionRun(count=4_000, seed=seed))
        with workers.worker(ready.settings, log) as process:
            workers.wait_until_refined(ready, process, log)
        # Kafka does this to the offsets of a consumer group that has not committed for a week.
        with closing(ready.admin()) as admin:
            assert admin.delete_groups([position_group(ready.settings, FAMILY.name)])
    assert workers.check_accounts(ready)["rows_in"] == 8_000
