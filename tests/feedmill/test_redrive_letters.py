"""`feedmill redrive` with dead letters: same bytes, key and header count in each round, each letter once."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import ensure_topics, topic_id, topic_name
from schema.dead_letter import REDRIVE_HEADER, is_dead_letter, original_headers, rejected_rows
from schema.json_form import json_lines
from schema.record import RAW, REJECTED
from schema.reduction import FAMILY
from schema.source_lines import source_headers
from streams.refine.gone import skip_letter
from tests import reductions
from tests.consumers.records import transaction
from tests.feedmill.conftest import Command
from tests.integration import workers

NDJSON = ("content-type", b"application/x-ndjson")
# Three lines with two reasons give two letters, one of them with two rows.
LINES = b'no json\n[]\n{"term": '
ROUNDS = 4


@pytest.fixture
def ready(connection: Connection) -> Connection:
    ensure_topics(connection, [FAMILY.name])
    return connection


def send(
    connection: Connection,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
    *,
    partition: int = 0,
    key: bytes | None = None,
    stage: str = RAW,
) -> int:
    """Send a record as a foreign client does; return its offset."""
    producer = connection.producer()
    topic = topic_name(connection.settings, FAMILY.name, stage)
    sent = producer.send(topic, value, key=key, partition=partition, headers=headers).get(30)
    producer.close()
    offset: int = sent.offset
    return offset


def redriven(called: Command, reason: str, *options: str) -> dict[str, Any]:
    """Return the counts of dead letters in the report of `feedmill redrive --json`."""
    status, out, err = called("redrive", FAMILY.name, "--reason", reason, "--json", *options)
    assert (status, err) == (0, "")
    return {name: value for name, value in json.loads(out).items() if name.startswith("letters_")}


def letters_of(connection: Connection, reason: str) -> list[workers.Read]:
    _, letters = workers.rejected(connection)
    return [letter for letter in letters if letter.headers["feedmill-reason"] == reason.encode()]


def test_bytes_key_and_header_count_are_the_same_in_every_round(
    ready: Connection, called: Command, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    lines = [("mine", b"1"), NDJSON, *source_headers("f.jsonl", [4, 5, 6])]
    with workers.worker(ready.settings, log) as process:
        send(ready, LINES, lines, partition=2, key=b"order-7")
        send(ready, b"\xff\xfe", [("huge", b"x" * 20_000)], partition=1)
        send(ready, None, [], partition=3, key=b"tombstone")
        workers.wait_until_refined(ready, process, log)
        for number in range(1, ROUNDS + 1):
            before = {"sent_before": 2 * (number - 1)} if number > 1 else {}
            report = redriven(called, "not_json")
            assert report == {"letters_found": 2 * number, "letters_sent": 2, "letters_left_out": before}
            workers.wait_until_refined(ready, process, log)
        assert redriven(called, "empty_record") == {
            "letters_found": 1,
            "letters_sent": 0,
            "letters_left_out": {"no_bytes": 1},
        }

    letters = letters_of(ready, "not_json")
    assert len(letters) == 2 * (ROUNDS + 1)
    for partition, key, value, rows in ((2, b"order-7", b'no json\n{"term": ', 2), (1, None, b"\xff\xfe", 1)):
        mine = [letter for letter in letters if letter.partition == partition]
        assert {(letter.key, letter.value) for letter in mine} == {(key, value)}
        # Each round has the same header names.
        assert len({tuple(sorted(letter.headers)) for letter in mine}) == 1
        rounds = [str(number).encode() for number in range(1, ROUNDS + 2)]
        assert [letter.headers["feedmill-round"] for letter in mine] == rounds
        assert {rejected_rows(letter.value, list(letter.headers.items())) for letter in mine} == {rows}
        raw = [record for record in workers.records(ready, RAW) if record.partition == partition][1:]
        assert {(record.key, record.value) for record in raw} == {(key, value)}
        assert len({len(record.headers) for record in raw}) == 1
    named = [letter.headers for letter in letters if letter.partition == 2]
    assert {(headers["content-type"], headers["feedmill-lines"]) for headers in named} == {(NDJSON[1], b"4,6")}
    dropped = [letter.headers["feedmill-dropped-headers"] for letter in letters if letter.partition == 1]
    assert set(dropped) == {b"huge"}
    sums = workers.check_accounts(ready)
    assert sums["rows_in"] == sums["rows_rejected"] == 3 + 1 + 1 + ROUNDS * (2 + 1)
    status, out, _ = called("audit", FAMILY.name, "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)


def test_a_letter_becomes_rows_when_its_cause_is_gone(ready: Connection, called: Command, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    rows = reductions.valid(3)
    lines = json_lines(rows, FAMILY)
    send(ready, lines, [NDJSON], key=b"batch")
    narrow = ready.settings.model_copy(update={"raw_record_max_rows": 2})
    with workers.worker(narrow, log) as process:
        workers.wait_until_refined(ready, process, log)
    (letter,) = letters_of(ready, "too_many_rows")
    assert (letter.key, letter.value, letter.headers["feedmill-rows"]) == (b"batch", lines, b"3")

    assert redriven(called, "too_many_rows") == {"letters_found": 1, "letters_sent": 1, "letters_left_out": {}}
    # No worker has seen the record yet: raw itself shows that the letter was sent.
    left_out = {"sent_before": 1}
    assert redriven(called, "too_many_rows") == {"letters_found": 1, "letters_sent": 0, "letters_left_out": left_out}
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    assert redriven(called, "too_many_rows") == {"letters_found": 1, "letters_sent": 0, "letters_left_out": left_out}
    assert set(workers.clean(ready)["example_id"]) == set(rows["example_id"])
    sums = workers.check_accounts(ready)
    assert (sums["rows_clean"], sums["rows_rejected"]) == (3, 3)


def test_letters_left_out_are_reported_and_the_limit_counts_letters(ready: Connection, called: Command) -> None:
    raw = TopicPartition(topic_name(ready.settings, FAMILY.name, RAW), 1)
    skipped = skip_letter(raw, [7, 8], "damaged")
    send(ready, skipped.value, skipped.headers, partition=1, stage=REJECTED)
    over = ready.settings.raw_record_max_bytes + 1
    foreign = [("__connect.errors.exception.class.name", b"org.example.Broken"), ("theirs", b"1")]
    send(ready, bytes(over), foreign, stage=REJECTED)
    for number in range(4):
        send(ready, b"%d" % number, foreign, key=b"k%d" % number, stage=REJECTED)

    status, out, err = called("redrive", FAMILY.name, "--reason", "skipped")
    assert (status, out) == (0, "")
    assert "and 0 of 1 dead letters" in err
    assert "1 dead letters were left out: they have no bytes to send" in err
    status, _, err = called("redrive", FAMILY.name, "--reason", "garbage")
    assert (status, "there are rows for org.example.Broken (5), skipped (2)" in err) == (0, True)

    report = {"letters_found": 5, "letters_sent": 3, "letters_left_out": {"over_raw_record_max_bytes": 1}}
    assert redriven(called, "org.example.Broken", "--limit", "3") == report
    status, _, err = called("redrive", FAMILY.name, "--reason", "org.example.Broken")
    assert (status, "and 1 of 5 dead letters" in err) == (0, True)
    assert "3 dead letters were left out: they were sent by an earlier redrive" in err
    assert "1 dead letters were left out: they have more bytes than `raw_record_max_bytes`" in err
    sent = workers.records(ready, RAW)
    assert [(record.key, record.value) for record in sent] == [(b"k%d" % n, b"%d" % n) for n in range(4)]
    assert all(set(record.headers) == {"theirs", REDRIVE_HEADER} for record in sent)


def test_a_letter_sent_behind_an_open_transaction_is_not_sent_twice(ready: Connection, called: Command) -> None:
    headers = [("__connect.errors.exception.class.name", b"org.example.Broken")]
    assert is_dead_letter(headers)
    offset = send(ready, b"theirs", headers, stage=REJECTED)
    rejected_id = topic_id(ready, topic_name(ready.settings, FAMILY.name, REJECTED))
    with transaction(ready) as producer:
        producer.send(topic_name(ready.settings, FAMILY.name, RAW), b"open", partition=0).get(30)
        # Sent as by an earlier redrive. Readers of committed records see it when the transaction ends.
        send(ready, b"theirs", [*original_headers(headers), (REDRIVE_HEADER, f"{rejected_id}/0/{offset}".encode())])
        ends = threading.Timer(2.0, producer.commit_transaction)
        ends.start()
        report = redriven(called, "org.example.Broken")
        ends.join()
        # The context manager expects an open transaction to end.
        producer.begin_transaction()
    assert report == {"letters_found": 1, "letters_sent": 0, "letters_left_out": {"sent_before": 1}}
