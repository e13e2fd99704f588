"""Workers that fail, stop or stall, as processes against a real Kafka: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import TopicPartition

from broker import embedded
from broker.clients import Connection, connect
from broker.holdups import member_count
from broker.kraft import HOST
from broker.ports import free_port
from broker.topics import committed_positions, delete_topics, ensure_topics, extents, topic_name
from producers.reduction.run import ReductionRun
from producers.run import produce
from schema import ledger
from schema.errors import AuditError, DrainTimeoutError, RowsLostError
from schema.record import RAW, REJECTED
from schema.reduction import FAMILY
from schema.settings import Settings, load_settings
from streams.audit.run import audit
from streams.drain import drain
from streams.positions import position_group, worker_group
from streams.skip import skip
from tests import reductions
from tests.integration import workers


@pytest.fixture
def ready(connection: Connection) -> Connection:
    ensure_topics(connection, [FAMILY.name])
    return connection


def faulty(settings: Settings, log: Path, fault: str) -> subprocess.Popen[bytes]:
    assert settings.bootstrap_servers is not None
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.faulty_worker", fault],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=settings.environment(settings.bootstrap_servers),
            cwd=Path(__file__).parents[2],
        )


def assert_fails(settings: Settings, log: Path, fault: str) -> None:
    """Run a worker with this fault until it ends, which it must with status 1."""
    process = faulty(settings, log, fault)
    try:
        assert process.wait(120) == 1, log.read_text()
    finally:
        workers.kill(process)


def wait_for(condition: Callable[[], bool], log: Path, limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_a_commit_that_fails_while_the_worker_stops_loses_nothing(ready: Connection, tmp_path: Path) -> None:
    settings = ready.settings.model_copy(update={"refine_group_records": 2, "partitions": 4})
    log = tmp_path / "worker.log"
    produce(ready, ReductionRun(count=30_000, seed=21))
    assert_fails(settings, log, "commit-fails-while-stopping")
    assert "stopped in order" not in log.read_text()
    assert "KafkaTimeoutError" in log.read_text()
    with workers.worker(settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    assert workers.check_accounts(ready)["rows_in"] == 30_000


def test_a_worker_that_was_stopped_and_fenced_takes_its_partitions_up_again(ready: Connection, tmp_path: Path) -> None:
    """Two idle workers; one is stopped until the other has taken over, and goes on: then all partitions must move."""
    settings = ready.settings
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    processes = [workers.spawn(settings, log) for log in logs]
    try:
        group = worker_group(settings)
        members = [2, 1, 2]
        wait_for(lambda: member_count(ready, group) == members[0], logs[0])
        processes[0].send_signal(signal.SIGSTOP)
        wait_for(lambda: member_count(ready, group) == members[1], logs[1])
        # The other has opened all partitions by the time that it has refined records of each.
        produce(ready, ReductionRun(count=8_000, seed=22))
        workers.wait_until_refined(ready, processes[1], logs[1])
        processes[0].send_signal(signal.SIGCONT)
        wait_for(lambda: member_count(ready, group) == members[2], logs[0])
        for seed in (23, 24):
            produce(ready, ReductionRun(count=8_000, seed=seed))
            workers.wait_until_refined(ready, processes[0], logs[0])
            assert processes[1].poll() is None, logs[1].read_text()
    finally:
        for process in processes:
            workers.kill(process)
    assert workers.check_accounts(ready)["rows_in"] == 24_000


def test_a_worker_that_takes_no_more_records_ends_with_an_error(ready: Connection, tmp_path: Path) -> None:
    settings = ready.settings.model_copy(update={"refine_stall_s": 4.0, "refine_group_records": 2})
    log = tmp_path / "worker.log"
    produce(ready, ReductionRun(count=30_000, seed=25))
    assert_fails(settings, log, "hangs")
    assert "no progress for 4 s while records are waiting at offset" in log.read_text()


def test_a_worker_that_judges_for_long_is_not_ended(ready: Connection, tmp_path: Path) -> None:
    settings = ready.settings.model_copy(update={"refine_stall_s": 8.0, "refine_group_records": 2})
    log = tmp_path / "worker.log"
    produce(ready, ReductionRun(count=12_000, seed=30))
    process = faulty(settings, log, "judges-slowly")
    try:
        workers.wait_until_refined(ready, process, log)
    finally:
        workers.kill(process)
    assert workers.check_accounts(ready)["rows_in"] == 12_000


def test_an_idle_worker_is_not_ended_by_a_record_that_comes_late(ready: Connection, tmp_path: Path) -> None:
    settings = ready.settings.model_copy(update={"refine_stall_s": 4.0})
    log = tmp_path / "worker.log"
    with workers.worker(settings, log) as process:
        for seed in range(4):
            produce(ready, ReductionRun(count=100, seed=seed))
            workers.wait_until_refined(ready, process, log)
            time.sleep(settings.refine_stall_s + 0.3)
    assert workers.check_accounts(ready)["rows_in"] == 400


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Settings]:
    """Settings with an embedded broker that only this test uses and may kill."""
    settings = load_settings(
        data_dir=tmp_path / "own", broker_port=free_port(HOST), broker_heap_mb=256, refine_stall_s=4.0, partitions=2
    )
    embedded.start(settings)
    yield settings
    embedded.stop(settings)


@pytest.mark.slow
def test_the_watchdog_survives_an_outage_of_the_broker(own_broker: Settings, tmp_path: Path) -> None:
    status = embedded.status(own_broker)
    assert status.servers is not None
    settings = own_broker.model_copy(update={"bootstrap_servers": status.servers})
    connection = connect(settings)
    ensure_topics(connection, [FAMILY.name])
    log = tmp_path / "worker.log"
    process = faulty(settings, log, "hangs")
    try:
        wait_for(lambda: b"refining" in log.read_bytes(), log)
        produce(connection, ReductionRun(count=500, seed=1))
        group = position_group(settings, FAMILY.name)
        topic = topic_name(settings, FAMILY.name, RAW)
        wait_for(lambda: bool(committed_positions(connection, group, topic)), log)
        assert status.pid is not None
        os.kill(status.pid, signal.SIGKILL)
        # Longer than a look of the watchdog takes, and than its patience.
        time.sleep(3 * settings.refine_stall_s)
        embedded.start(own_broker)
        assert process.poll() is None, log.read_text()
        produce(connection, ReductionRun(count=5_000, seed=2))
        assert process.wait(120) == 1, log.read_text()
    finally:
        workers.kill(process)
    assert "no progress for 4 s" in log.read_text()


def test_a_raw_topic_that_was_created_again_is_refined_from_its_beginning(ready: Connection, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    topic = topic_name(ready.settings, FAMILY.name, RAW)
    produce(ready, ReductionRun(count=12_000, seed=26))
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    before = workers.entries(ready)
    delete_topics(ready, [topic])
    _recreate(ready)
    produce(ready, ReductionRun(count=4_000, seed=27))
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    after = workers.entries(ready)
    assert after["source_topic_id"].n_unique() == 2
    assert after["rows_in"].sum() - before["rows_in"].sum() == 4_000


def _recreate(connection: Connection) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ensure_topics(connection, [FAMILY.name])
            return
        except Exception:
            # Kafka deletes in the background.
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_records_that_retention_removed_are_counted_as_lost(ready: Connection, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    topic = topic_name(ready.settings, FAMILY.name, RAW)
    produce(ready, ReductionRun(count=20_000, seed=28))
    gone = {partition: extent.end // 2 for partition, extent in extents(ready, topic).items()}
    with closing(ready.admin()) as admin:
        admin.delete_records({TopicPartition(topic, partition): offset for partition, offset in gone.items()})
    with workers.worker(ready.settings, log) as process:
        workers.wait_until_refined(ready, process, log)
    entries = workers.entries(ready)
    lost = entries.filter(entries["rows_lost"] > 0)
    assert dict(lost.select("source_partition", "rows_lost").rows()) == gone
    assert dict(lost.select("source_partition", "source_offset").rows()) == {
        partition: offset - 1 for partition, offset in gone.items()
    }
    assert set(lost["reasons"].explode().struct.field("reason")) == {ledger.LOST_TO_RETENTION}
    assert "retention removed" in log.read_text()
    with pytest.raises(RowsLostError, match=f"removed {sum(gone.values())} offsets"):
        drain(ready, FAMILY.name, timeout_s=60)
    drain(ready, FAMILY.name, timeout_s=60, accept_lost=True)


def test_drain_waits_for_removed_records_to_be_counted(ready: Connection) -> None:
    topic = topic_name(ready.settings, FAMILY.name, RAW)
    produce(ready, ReductionRun(count=4_000, seed=29))
    ends = {TopicPartition(topic, partition): extent.end for partition, extent in extents(ready, topic).items()}
    with closing(ready.admin()) as admin:
        admin.delete_records(ends)
    with pytest.raises(DrainTimeoutError, match="offsets left in raw"):
        drain(ready, FAMILY.name, timeout_s=1)


def test_a_position_passes_the_markers_that_end_a_topic(ready: Connection, tmp_path: Path) -> None:
    """Without that, retention that removes old segments whole would look like a loss of records."""
    settings = ready.settings.model_copy(update={"refine_stall_s": 4.0})
    topic, group = topic_name(settings, FAMILY.name, RAW), position_group(settings, FAMILY.name)
    lines = b"\n".join(json.dumps({"term": reductions.row(number)["term"]}).encode() for number in range(40))
    with closing(ready.producer()) as producer:
        producer.send(topic, value=lines, partition=0).get(30)
    log = tmp_path / "worker.log"
    with workers.worker(settings, log):
        wait_for(
            lambda: (
                committed_positions(ready, group, topic)
                == {partition: extent.end for partition, extent in extents(ready, topic).items()}
            ),
            log,
        )
    # Rows that were sent on came in a transaction, whose marker takes up the last offset.
    assert len([record for record in workers.records(ready, RAW) if record.partition]) == settings.partitions - 1
    assert workers.entries(ready)["source_offset"].max() == 0


@pytest.mark.slow
def test_an_unreadable_batch_holds_only_its_partition_and_can_be_skipped(own_broker: Settings, tmp_path: Path) -> None:
    """Bytes of a batch are changed on the broker's disk, as a failing disk would."""
    servers = embedded.status(own_broker).servers
    assert servers is not None
    connection = connect(own_broker.model_copy(update={"bootstrap_servers": servers}))
    ensure_topics(connection, [FAMILY.name])
    topic = topic_name(own_broker, FAMILY.name, RAW)
    for seed in range(6):
        produce(connection, ReductionRun(count=600, seed=seed))
    ends = {partition: extent.end for partition, extent in extents(connection, topic).items()}
    embedded.stop(own_broker)
    segment = next(own_broker.data_dir.rglob(f"{topic}-0/00000000000000000000.log"))
    content = bytearray(segment.read_bytes())
    second = 12 + int.from_bytes(content[8:12], "big")
    third = second + 12 + int.from_bytes(content[second + 8 : second + 12], "big")
    begin = int.from_bytes(content[second : second + 8], "big")
    end = int.from_bytes(content[third : third + 8], "big")
    content[second + 100] ^= 0xFF
    segment.write_bytes(content)
    servers = embedded.start(own_broker).servers
    assert servers is not None
    connection = connect(own_broker.model_copy(update={"bootstrap_servers": servers}))

    log = tmp_path / "worker.log"
    process = workers.spawn(connection.settings, log)
    try:
        group = position_group(own_broker, FAMILY.name)
        wait_for(lambda: f"offset {begin} cannot be read" in log.read_text(), log)
        wait_for(lambda: committed_positions(connection, group, topic).get(1) == ends[1], log)
        wait_for(lambda: committed_positions(connection, group, topic).get(0) == begin, log)
        time.sleep(2 * connection.settings.refine_stall_s)
        assert process.poll() is None, log.read_text()

        with pytest.raises(AuditError, match=f"{topic}/0 offset {begin} cannot be read"):
            audit(connection, FAMILY)
        report = skip(connection, FAMILY, 0)
        assert (report.begin, report.end) == (begin, end)
        assert "CorruptRecord" in str(report.error)
        wait_for(lambda: committed_positions(connection, group, topic).get(0) == ends[0], log)
        assert process.poll() is None, log.read_text()
    finally:
        workers.kill(process)
    audited = audit(connection, FAMILY)
    assert audited.ok, audited.first_fault
    assert audited.raw_records == sum(ends.values()) - (end - begin)
    entries = workers.entries(connection)
    skipped = entries.filter(entries["source_partition"] == 0).filter(
        entries.filter(entries["source_partition"] == 0)["source_offset"].is_between(begin, end - 1)
    )
    assert set(skipped["reasons"].explode().struct.field("reason")) == {ledger.SKIPPED}
    letters = [each for each in workers.records(connection, REJECTED) if "__connect.errors.topic" in each.headers]
    assert [letter.headers["feedmill-rows"] for letter in letters] == [str(end - begin).encode()]
    assert sorted(entries["source_offset"].to_list()) == sorted([*range(ends[0]), *range(ends[1])])
