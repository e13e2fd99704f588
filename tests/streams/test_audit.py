"""The audit on topics of a real Kafka: each fault is found and named, and correct topics pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import polars as pl
import pytest
from kafka import TopicPartition
from kafka.record.default_records import DefaultRecordBatch

from broker.clients import Connection
from broker.topics import Extent, topic_id
from schema.errors import AuditError
from schema.ledger import LOST_TO_RETENTION, SKIPPED
from schema.record import CLEAN, LEDGER, RAW, Envelope, encode
from schema.reduction import FAMILY
from streams.audit.report import AuditReport
from streams.audit.run import audit
from streams.audit.scan import scan
from streams.coverage.client import open_coverage
from streams.skip import skip
from tests.streams.refined import RefinedTopics, coverage_of, rows_of

NONE = pl.DataFrame(schema=FAMILY.wire)
FAULTS = (
    "missing",
    "removed",
    "doubled",
    "unknown",
    "unbalanced",
    "coverage_differs",
    "duplicate_ids",
    "misplaced",
    "foreign_records",
)


@pytest.fixture
def topics(connection: Connection) -> Iterator[RefinedTopics]:
    """Two refined raw records in partition 0, one in partition 3, and dead letters."""
    refined = RefinedTopics(connection)
    rows = rows_of(0, 7)
    refined.whole(rows.head(3))
    refined.whole(rows.tail(4), rejected=5, letters=2)
    refined.whole(rows_of(3, 2), partition=3)
    yield refined
    refined.close()


def faults(report: AuditReport) -> dict[str, int]:
    """The kinds of faults that were found, with their counts."""
    return {name: getattr(report, name) for name in FAULTS if getattr(report, name)}


def fault(report: AuditReport) -> tuple[str, int, int | None]:
    """Where the first fault is: (stage, partition, offset)."""
    assert not report.ok
    assert report.first_fault is not None
    return report.first_fault.topic.rpartition(".")[2], report.first_fault.partition, report.first_fault.offset


def test_topics_that_agree_with_their_ledger_pass(topics: RefinedTopics) -> None:
    report = topics.audited()
    assert report.ok
    assert faults(report) == {}
    assert (report.raw_records, report.ledger_entries, report.waiting) == (3, 3, 0)
    sums = {"rows_in": 16, "rows_clean": 9, "rows_rejected": 7, "rows_rerouted": 0, "rows_augmented": 0}
    assert report.rows.items() >= sums.items()
    document = report.to_json()
    contract = {"ok", "raw_records", "ledger_entries", "missing", "doubled", "unbalanced", "duplicate_ids"}
    assert document.keys() >= contract | {"first_fault"}


def test_a_record_below_the_position_without_an_entry_is_missing_and_one_beyond_waits(topics: RefinedTopics) -> None:
    rows = rows_of(0, 40).tail(6)
    lost = topics.raw(rows.head(2))
    kept = topics.raw(rows.slice(2, 2))
    topics.refine(kept, rows.slice(2, 2))
    topics.raw(rows.tail(2))
    report = topics.audited()
    assert fault(report) == ("raw", 0, lost)
    assert faults(report) == {"missing": 1}
    assert report.waiting == 1


def test_a_lost_record_at_the_end_is_missing_because_the_position_has_passed_it(topics: RefinedTopics) -> None:
    lost = topics.raw(rows_of(3, 9).tail(2), partition=3)
    topics.refine(lost, NONE, partition=3, entries=0)
    report = topics.audited()
    assert fault(report) == ("raw", 3, lost)
    assert faults(report) == {"missing": 1}


def test_an_entry_too_many_and_an_entry_without_a_record_are_faults(topics: RefinedTopics) -> None:
    doubled = topics.whole(NONE.clear(), entries=3)
    report = topics.audited()
    assert fault(report) == ("raw", 0, doubled)
    assert faults(report) == {"doubled": 2}
    # The offset of a transaction's marker holds no record.
    topics.refine(doubled + 1, NONE)
    report = topics.audited()
    assert faults(report) == {"doubled": 2, "unknown": 1}


@pytest.mark.parametrize(
    "claims",
    [
        {"rows_in": 9},
        {"rows_in": 3, "rows_clean": 3},
        {"rows_in": 5, "rows_rejected": 3},
        {"rows_in": 6, "rows_rerouted": 4},
        {"rows_augmented": 1},
    ],
)
def test_rows_that_differ_from_the_entry_are_faults(topics: RefinedTopics, claims: dict[str, int]) -> None:
    rows = rows_of(0, 40).tail(2)
    wrong = topics.whole(rows, **claims)
    report = topics.audited()
    assert fault(report) == ("raw", 0, wrong)
    assert faults(report).keys() == {"unbalanced"}


def test_coverage_counts_that_differ_from_a_recount_are_a_fault(topics: RefinedTopics) -> None:
    rows = rows_of(0, 40).tail(3)
    counted = coverage_of(rows)
    counted[-1] = {**counted[-1], "rows": counted[-1]["rows"] + 1}
    wrong = topics.whole(rows, coverage=counted)
    report = topics.audited()
    assert fault(report) == ("raw", 0, wrong)
    assert faults(report) == {"coverage_differs": 1}


def test_an_id_twice_in_clean_and_a_row_in_a_wrong_partition_are_faults(topics: RefinedTopics) -> None:
    topics.whole(rows_of(0, 2))
    report = topics.audited()
    assert fault(report)[:2] == ("clean", 0)
    assert faults(report) == {"duplicate_ids": 2}


def test_an_id_may_come_again_outside_the_window_only(topics: RefinedTopics) -> None:
    topics.whole(rows_of(0, 2))
    windowed = {
        window: topics.connection.settings.model_copy(update={"dedup_window_rows": window}) for window in (6, 8)
    }
    reports = {
        window: audit(Connection(changed, topics.connection.servers), FAMILY) for window, changed in windowed.items()
    }
    # Seven other rows lie between.
    assert faults(reports[6]) == {}
    assert faults(reports[8]) == {"duplicate_ids": 2}


def test_a_row_in_another_partition_than_its_own_is_a_fault(topics: RefinedTopics) -> None:
    topics.whole(rows_of(1, 3), partition=3)
    report = topics.audited()
    assert fault(report)[:2] == ("clean", 3)
    assert faults(report) == {"misplaced": 3}


def test_rows_placed_before_partitions_were_added_stay_right(connection: Connection) -> None:
    settings = connection.settings.model_copy(update={"partitions": 2})
    few = Connection(settings, connection.servers)
    refined = RefinedTopics(few)
    refined.whole(rows_of(1, 30, partitions=2), partition=1)
    with closing(few.admin()) as admin:
        admin.create_partitions(dict.fromkeys(refined.names.values(), 4))
    assert faults(refined.audited()) == {}
    refined.close()


def test_a_foreign_record_is_counted_and_reported(topics: RefinedTopics) -> None:
    for stage in (CLEAN, LEDGER):
        producer = topics.connection.producer()
        producer.send(topics.names[stage], b"{}", partition=0).get(timeout=30)
        producer.close()
    report = topics.audited()
    assert report.ok
    assert faults(report) == {"foreign_records": 2}


def test_foreign_rows_that_look_like_a_workers_do_not_hide_or_make_a_fault(topics: RefinedTopics) -> None:
    rows = rows_of(2, 3)
    source = f"{topics.names[RAW]}/0/0-999999999"
    headers = Envelope(FAMILY.name, RAW, 1, "r", 0, "0.0.rerouted.2.0", 3, source).headers()
    producer = topics.connection.producer()
    producer.send(topics.names[RAW], encode(rows), partition=2, headers=headers).get(timeout=30)
    producer.close()
    wrong = topics.whole(rows_of(0, 40).tail(1), rows_in=2, rows_rerouted=1)
    assert fault(topics.audited()) == ("raw", 0, wrong)


def test_a_shortened_ledger_and_a_shortened_raw_are_reported(topics: RefinedTopics) -> None:
    ledger = TopicPartition(topics.names[LEDGER], 0)
    raw = TopicPartition(topics.names[RAW], 0)
    waiting = [topics.raw(rows_of(0, 40).tail(1)) for _ in range(2)]
    with closing(topics.connection.admin()) as admin:
        # The first of two records that are not refined yet.
        admin.delete_records({raw: waiting[0] + 1})
        report = topics.audited()
        assert fault(report)[:2] == ("raw", 0)
        assert faults(report) == {"removed": 1}
        assert report.waiting == 1
    with closing(topics.connection.admin()) as admin:
        admin.delete_records({ledger: 1})
    report = topics.audited()
    assert "entries below offset 1 of its ledger were removed" in str(report.first_fault)


def test_lost_and_skipped_records_in_the_ledger_are_no_faults(topics: RefinedTopics) -> None:
    gone = [topics.raw(rows_of(0, 40).tail(1)) for _ in range(2)]
    skipped = topics.raw(rows_of(0, 40).tail(1))
    raw = TopicPartition(topics.names[RAW], 0)
    with closing(topics.connection.admin()) as admin:
        admin.delete_records({raw: skipped})
    lost = skipped - gone[0]
    reason = {"reason": LOST_TO_RETENTION, "rows": lost}
    topics.refine(skipped - 1, NONE, rows_in=lost, rows_lost=lost, reasons=[reason])
    reason = {"reason": SKIPPED, "rows": 1}
    topics.refine(skipped, NONE, rows_in=1, rows_rejected=1, reasons=[reason])
    report = topics.audited()
    assert faults(report) == {}
    assert report.ok
    assert report.rows["rows_lost"] == lost


def test_a_marker_within_skipped_offsets_is_no_fault(topics: RefinedTopics) -> None:
    skipped = topics.raw(rows_of(3, 40).tail(1), partition=3)
    topics.raw(rows_of(3, 41).tail(1), partition=3)
    topics.settle()
    # The offset after the record holds the marker of its transaction.
    report = skip(topics.connection, FAMILY, 3, skipped + 2)
    assert report.begin < skipped < report.end - 1
    topics.moved(3, skipped + 2)
    audited = topics.audited()
    assert faults(audited) == {}
    assert audited.waiting == 1


def damage(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Let every batch with this content fail its check."""
    is_sound = DefaultRecordBatch.validate_crc
    monkeypatch.setattr(
        DefaultRecordBatch, "validate_crc", lambda batch: content not in batch._buffer and is_sound(batch)
    )


@pytest.fixture
def unreadable(topics: RefinedTopics, monkeypatch: pytest.MonkeyPatch) -> int:
    """The offset of a raw record whose batch fails its check."""
    rows = rows_of(0, 40).tail(1)
    damage(monkeypatch, encode(rows))
    return topics.raw(rows)


def entry_columns(reason: str) -> dict[str, Any]:
    """The ledger columns of one record that was not judged, for this reason."""
    outcome = "rows_lost" if reason == LOST_TO_RETENTION else "rows_rejected"
    return {"rows_in": 1, outcome: 1, "reasons": [{"reason": reason, "rows": 1}]}


@pytest.mark.parametrize("reason", ["duplicate", None])
def test_an_unreadable_batch_that_was_not_skipped_is_named(
    topics: RefinedTopics, unreadable: int, reason: str | None
) -> None:
    if reason:
        topics.refine(unreadable, NONE, **entry_columns(reason))
    with pytest.raises(AuditError, match=f"{topics.names[RAW]}/0 offset {unreadable} cannot be read.*CorruptRecord"):
        topics.audited()


@pytest.mark.parametrize("reason", [SKIPPED, LOST_TO_RETENTION])
def test_an_unreadable_batch_that_was_skipped_or_lost_is_stepped_over(
    topics: RefinedTopics, unreadable: int, reason: str
) -> None:
    topics.refine(unreadable, NONE, **entry_columns(reason))
    topics.whole(rows_of(0, 20).tail(5))
    report = topics.audited()
    assert faults(report) == {}
    assert report.ok
    assert (report.raw_records, report.ledger_entries) == (4, 5)


def test_an_unreadable_batch_after_the_end_of_an_audit_does_not_matter(topics: RefinedTopics, unreadable: int) -> None:
    offsets: list[int] = []
    assert list(scan(topics.connection, topics.names[RAW], {0: Extent(0, unreadable)}, offsets.append))
    assert sum(offsets) == unreadable


def test_an_unreadable_batch_of_clean_is_named(topics: RefinedTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(monkeypatch, b"reduction.clean")
    with pytest.raises(AuditError, match=rf"{topics.names[CLEAN]}/\d offset 0 cannot be read.*restore the topic"):
        topics.audited()


def test_entries_of_a_deleted_raw_topic_are_not_held_against_the_new_one(topics: RefinedTopics) -> None:
    old = topic_id(topics.connection, topics.names[RAW])
    topics.whole(rows_of(1, 3), partition=1, source_topic_id="another")
    topics.whole(rows_of(2, 3), partition=2, source_topic_id=old)
    report = topics.audited()
    # The record of partition 1 is below its position, but its entry belongs to another topic.
    assert faults(report) == {"missing": 1}


def test_duckdb_is_compared_up_to_its_own_position_or_reported_as_not_compared(topics: RefinedTopics) -> None:
    connection = topics.connection
    report = topics.audited()
    assert (report.ok, report.coverage.compared) == (True, False)
    assert "there is no coverage store" in report.coverage.note
    with open_coverage(connection) as coverage:
        coverage.report(FAMILY.name)
    topics.whole(rows_of(0, 40).tail(3))
    report = topics.audited()
    assert (report.ok, report.coverage.compared) == (True, True)
    assert "the 3 entries up to its position" in report.coverage.note
    assert report.ledger_entries == 4


def test_duckdb_that_differs_from_its_ledger_is_a_fault(topics: RefinedTopics) -> None:
    from streams.coverage.entries import sums
    from streams.coverage.owner import coverage_folder
    from streams.coverage.store import CoverageStore
    from tests.streams.ledgers import entry, frame

    connection = topics.connection
    with open_coverage(connection) as coverage:
        coverage.report(FAMILY.name)
    store = CoverageStore(coverage_folder(connection.settings), {FAMILY.name: FAMILY})
    store.fold([], sums({FAMILY.name: frame([entry(0, rows_in=1, rows_clean=1)])}))
    store.close()
    report = topics.audited()
    assert fault(report)[0] == "ledger"
    assert "entries: DuckDB has 4, the ledger 3" in report.coverage.note


def test_the_command_exits_1_and_names_the_first_offending_offset(
    topics: RefinedTopics, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from feedmill.cli import run

    settings = topics.connection.settings
    for name in ("namespace", "data_dir", "bootstrap_servers"):
        monkeypatch.setenv(f"FEEDMILL_{name.upper()}", str(getattr(settings, name)))

    def command(*arguments: str) -> tuple[int, str, str]:
        status = run(["audit", FAMILY.name, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    status, out, _ = command()
    assert status == 0
    assert "16 rows in = 9 clean + 7 rejected + 0 rerouted" in out
    lost = topics.raw(rows_of(0, 40).tail(1))
    topics.refine(lost, NONE, entries=0)
    status, out, err = command("--json")
    document: dict[str, Any] = json.loads(out)
    assert (status, document["ok"], document["missing"]) == (1, False, 1)
    assert document["first_fault"]["topic"] == topics.names[RAW]
    assert (document["first_fault"]["partition"], document["first_fault"]["offset"]) == (0, lost)
    assert err.count("\n") == 1
    assert f"{topics.names[RAW]}/0 offset {lost}" in err
