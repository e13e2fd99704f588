"""A worker goes on with foreign records in raw, clean or the ledger, in any compression, and accounts for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import polars as pl
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name
from consumers.replay.topic_range import replay
from producers.sink import send_frames
from schema.dead_letter import rejected_rows
from schema.errors import RecordError
from schema.ledger_entries import decode_entries
from schema.record import CLEAN, LEDGER, RAW, REJECTED, Envelope, encode
from schema.reduction import FAMILY
from schema.source_lines import source_headers
from streams.coverage.client import open_coverage
from tests import reductions
from tests.integration import workers

ARROW = Envelope(FAMILY.name, RAW, 1, "run", 0, 0, 1).headers()
# Each stage's topic has its own compression setting.
TOPICS = {RAW: "zstd", CLEAN: "snappy", REJECTED: "gzip", LEDGER: "lz4"}
TIMES_MS = (-(2**62), -1, 0, 2**62, 1_700_000_000_000_000_000)


@pytest.fixture
def ready(connection: Connection) -> Iterator[Connection]:
    ensure_topics(connection, [FAMILY.name])
    with closing(connection.admin()) as admin:
        for stage, codec in TOPICS.items():
            # Older brokers accept any timestamp.
            wanted = {"compression.type": codec}
            if stage == RAW:
                wanted["message.timestamp.after.max.ms"] = str(2**63 - 1)
            topic = topic_name(connection.settings, FAMILY.name, stage)
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    yield connection


def put(connection: Connection, stage: str, values: Mapping[int, bytes], **options: str) -> None:
    """Send one record to each of these partitions of a stage's topic."""
    with closing(connection.producer(**options)) as producer:
        for partition, value in values.items():
            topic = topic_name(connection.settings, FAMILY.name, stage)
            producer.send(topic, value, partition=partition, headers=ARROW if stage == RAW else []).get(30)


def _entries(connection: Connection) -> pl.DataFrame:
    frames = []
    for read in workers.records(connection, LEDGER):
        with suppress(RecordError):
            frames.append(decode_entries(read.value, list(read.headers.items()), FAMILY.name, 10_000))
    return pl.concat(frames)


def test_a_worker_reads_every_codec_and_skips_foreign_records(ready: Connection, tmp_path: Path) -> None:
    rows = reductions.valid(400)
    log = tmp_path / "worker.log"
    with workers.worker(ready.settings, log) as process:
        send_frames(ready, FAMILY, "first", [rows.head(100)])
        workers.wait_until_refined(ready, process, log)
    put(ready, CLEAN, {0: b"junk", 1: encode(rows.head(3))})
    put(ready, LEDGER, {0: b"junk", 2: encode(pl.DataFrame({"rows_in": [None]}))})
    for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        piece = rows.slice(100 + 50 * number, 50)
        put(ready, RAW, {partition: encode(piece) for partition in range(2)}, compression_type=codec)
    raw = topic_name(ready.settings, FAMILY.name, RAW)
    with closing(ready.producer(compression_type="zstd")) as producer:
        for time_ms in TIMES_MS:
            producer.send(raw, b"no json", partition=0, timestamp_ms=time_ms)
        producer.send(raw, encode(rows.tail(10)), partition=0, headers=[*ARROW, ("feedmill-run", b"r" * 600_000)])
        lines = b"\n".join([b"[]"] * 5000)
        producer.send(raw, lines, key=b"mine", partition=3, headers=source_headers("f.jsonl", range(1, 5001)))
        huge = json.dumps({"term": "0", "step_k": 2**70, "meta": {"growth": 1e308}}).encode()
        producer.send(raw, huge.replace(b"1e+308", b"1e400"), partition=2)
        producer.flush()
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    worker_log = log.read_text()
    for topic, partition in ((CLEAN, 0), (CLEAN, 1)):
        assert f".{topic}/{partition} offset" in worker_log
    entries = _entries(ready)
    assert entries["rows_in"].sum() - entries["rows_rerouted"].sum() == 100 + 2 * 200 + len(TIMES_MS) + 10 + 5000 + 1
    assert (
        entries.filter(
            pl.col("rows_in") != pl.col("rows_clean") + pl.col("rows_rejected") + pl.col("rows_rerouted")
        ).height
        == 0
    )
    letters = [read for read in workers.records(ready, REJECTED) if "__connect.errors.topic" in read.headers]
    counted: Counter[str] = Counter()
    for read in letters:
        counted[read.headers["feedmill-reason"].decode()] += rejected_rows(read.value, list(read.headers.items()))
    assert counted == {"not_json": len(TIMES_MS), "not_an_object": 5000, "wrong_type": 1}
    assert entries.filter(pl.col("source_offset") < 0).is_empty()
    assert entries["source_time"].null_count() == len(TIMES_MS) - 1
    # Other readers: coverage passes over the ledger's junk, a replay over that of clean.
    with open_coverage(ready) as coverage:
        report = coverage.report(FAMILY.name)
    assert report["rows_in"] == entries["rows_in"].sum()
    assert {found["partition"] for found in report["foreign_records"]} == {0, 2}
    written = replay(ready, FAMILY.name, tmp_path / "clean.jsonl")
    assert (written.rows, written.foreign_records) == (entries["rows_clean"].sum(), 2)
