"""The ledger topics, on a real Kafka, into the store."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
import pytest
from kafka.structs import TopicPartition

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.errors import CoverageError
from schema.record import LEDGER, Envelope, encode
from schema.registry import FAMILIES
from schema.settings import Settings
from streams.coverage import fold as fold_module
from streams.coverage.client import open_coverage, rebuild
from streams.coverage.entries import sums
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.report import foreign_lines
from streams.coverage.store import CoverageStore, FoldAdvance
from tests.broker.recreation import create_again
from tests.streams.ledgers import FAMILY, LedgerWriter, as_folded, entry, folded, frame, random_entry, without_minutes

NAME = FAMILY.name
OURS = Envelope(NAME, LEDGER, 1, run="r", chunk=0, part=0, rows=1).headers()


@pytest.fixture
def ledger(connection: Connection) -> Iterator[LedgerWriter]:
    writer = LedgerWriter(connection)
    yield writer
    writer.close()


@contextmanager
def folding(connection: Connection) -> Iterator[tuple[CoverageStore, LedgerFold]]:
    store = CoverageStore(coverage_folder(connection.settings), FAMILIES)
    try:
        fold = LedgerFold(connection, store, FAMILIES)
        try:
            yield store, fold
        finally:
            fold.close()
    finally:
        store.close()


def filled(ledger: LedgerWriter, seed: int, transactions: int = 6) -> list[dict[str, Any]]:
    """Write some transactions to random partitions, an aborted one among them; return the entries committed."""
    rng = random.Random(seed)
    written = []
    for number in range(transactions):
        entries = [random_entry(rng, n) for n in range(rng.randrange(1, 4))]
        aborted = number == 2
        ledger.write(entries, partition=rng.randrange(4), abort=aborted)
        written += [] if aborted else entries
    return written


def report(connection: Connection) -> dict[str, Any]:
    with open_coverage(connection) as coverage:
        return coverage.report(NAME)


def test_committed_entries_are_folded_once_over_several_folds(connection: Connection, ledger: LedgerWriter) -> None:
    written = []
    for seed in range(3):
        written += filled(ledger, seed)
        with folding(connection) as (store, fold):
            fold.to_end()
            fold.to_end()
            assert store.counts(NAME).totals == folded(written)["totals"]
    assert as_folded(report(connection)) == without_minutes(folded(written))


def test_positions_move_past_transaction_markers(connection: Connection, ledger: LedgerWriter) -> None:
    filled(ledger, seed=4)
    ledger.write([entry(rows_in=1, rows_clean=1)], abort=True)
    with folding(connection) as (store, fold):
        fold.to_end()
        assert store.counts(NAME).next_offsets == {
            partition: extent.end for partition, extent in extents(connection, ledger.topic).items()
        }


def test_a_partition_added_while_folding_is_taken_up(
    connection: Connection, ledger: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_module, "_PARTITIONS_CHECK_S", 0.0)
    with folding(connection) as (store, fold):
        fold.to_end()
        admin = connection.admin()
        admin.create_partitions({ledger.topic: 5})
        admin.close()
        ledger.close()
        writer = LedgerWriter(connection)
        writer.write([entry(rows_in=3, rows_clean=3)], partition=4)
        writer.close()
        fold.to_end()
        assert store.counts(NAME).totals["rows_in"] == 3


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param((b"junk", []), id="junk"),
        pytest.param((b"junk", OURS), id="junk that says it is ours"),
        pytest.param(
            (encode(frame([entry(7, rows_in=1)]).with_columns(rows_in=pl.lit(2**62))), OURS), id="absurd count"
        ),
        pytest.param((encode(frame([entry(7, source_partition=None)])), OURS), id="no partition"),
        pytest.param((encode(frame([entry(-7, rows_in=1, rows_clean=1)])), OURS), id="negative offset"),
        pytest.param((encode(frame([entry(reasons=[{"reason": None, "rows": 1}])])), OURS), id="no reason"),
        pytest.param((encode(frame([entry(reasons=[{"reason": "x", "rows": None}])])), OURS), id="no rows"),
        pytest.param((encode(frame([entry(coverage=[{"axis": "a", "bin": "b\0", "rows": 1}])])), OURS), id="NUL"),
        pytest.param((encode(pl.DataFrame({"rows_in": [None] * 100})), OURS), id="nothing but nulls"),
    ],
)
def test_a_foreign_record_is_passed_over_and_counted(
    connection: Connection, ledger: LedgerWriter, garbage: tuple[bytes, list[tuple[str, bytes]]]
) -> None:
    ledger.write([entry(rows_in=3, rows_clean=3)])
    ledger.send(*garbage)
    ledger.write([entry(1, rows_in=4, rows_clean=4)])
    for _ in range(2):
        counted = report(connection)
        assert (counted["rows_in"], counted["entries"]) == (7, 2)
        (foreign,) = counted["foreign_records"]
        assert (foreign["partition"], foreign["records"], foreign["last_offset"]) == (0, 1, 2)
        assert "offset 2" in foreign_lines(counted)[0]
    rebuild(connection)
    assert report(connection)["foreign_records"] == counted["foreign_records"]


@pytest.mark.parametrize("time_ms", [-(2**62), 2**62, 1_700_000_000_000_000_000, -1])
def test_an_absurd_time_counts_as_no_time(connection: Connection, ledger: LedgerWriter, time_ms: int) -> None:
    rows = frame([entry(0, rows_in=3, rows_clean=3), entry(1, rows_in=4, rows_clean=4)])
    absurd = pl.Series([time_ms, 1_900_000_000_000]).cast(pl.Datetime("ms", "UTC"))
    ledger.send(encode(rows.with_columns(source_time=absurd)), OURS)
    counted = report(connection)
    assert counted["rows_in"] == 7
    assert counted["first_generated"] == counted["last_generated"] == "2030-03-17T17:46:40.000+00:00"
    rebuild(connection)
    assert report(connection) == counted


def test_one_familys_trouble_does_not_stop_another(connection: Connection, ledger: LedgerWriter) -> None:
    ledger.write([entry(rows_in=3, rows_clean=3)])
    other = "scenario"
    other_topic = topic_name(connection.settings, other, LEDGER)
    with open_coverage(connection) as coverage:
        assert coverage.report(other)["rows_in"] == 0
    # The other family's ledger is deleted and created again while coverage runs.
    create_again(connection, other_topic, other)
    ledger.write([entry(1, rows_in=4, rows_clean=4)])
    with open_coverage(connection) as coverage:
        assert coverage.report(NAME)["rows_in"] == 7
        with pytest.raises(CoverageError, match=f"coverage of {other} was folded from topic"):
            coverage.report(other)


def test_a_family_whose_store_fails_keeps_its_position_and_is_tried_again(
    connection: Connection, ledger: LedgerWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "scenario"
    envelope = Envelope(other, LEDGER, 1, run="r", chunk=0, part=0, rows=1)
    producer = connection.producer()
    with folding(connection) as (store, fold):
        # Another process writes the store: the position of one family is no longer the one of this fold.
        store.fold([FoldAdvance(NAME, 0, 0, 1)], sums({}))
        ledger.write([entry(rows_in=3, rows_clean=3)])
        value = encode(frame([entry(rows_in=5, rows_clean=5)]))
        producer.send(topic_name(connection.settings, other, LEDGER), value, headers=envelope.headers()).get(30)
        producer.close()
        fold.to_end()
        assert "is folded up to offset 1" in fold.troubles[NAME]
        with pytest.raises(CoverageError, match="is folded up to offset 1"):
            fold.check(NAME)
        fold.check(other)
        assert store.counts(other).totals["rows_in"] == 5
        assert store.counts(NAME).totals["rows_in"] == 0
        monkeypatch.setattr(fold_module, "_RETRY_S", 0.0)
        fold._retry_at = 0.0
        fold.step(0.1)
        assert fold.troubles == {}
        ledger.write([entry(1, rows_in=4, rows_clean=4)])
        fold.to_end()
        # It goes on from the position in the store, so the entries that the other process skipped are not counted.
        assert store.counts(NAME).totals["rows_in"] == 4
        assert store.counts(other).totals["rows_in"] == 5


def test_a_ledger_that_was_created_again_is_refused_until_rebuilt(connection: Connection, ledger: LedgerWriter) -> None:
    filled(ledger, seed=5)
    report(connection)
    create_again(connection, ledger.topic)
    recreated = LedgerWriter(connection)
    recreated.write([entry(rows_in=9, rows_clean=9)])
    recreated.close()
    with pytest.raises(CoverageError, match="is another: run `feedmill coverage rebuild`"):
        report(connection)
    rebuild(connection)
    assert report(connection)["rows_in"] == 9


def test_a_ledger_that_is_created_again_while_coverage_runs_is_not_folded_on(
    connection: Connection, ledger: LedgerWriter
) -> None:
    ledger.write([entry(rows_in=2, rows_clean=2)])
    with folding(connection) as (store, fold):
        fold.to_end()
        create_again(connection, ledger.topic)
        recreated = LedgerWriter(connection)
        # More records than were folded, so that the old offset exists in the new topic.
        for _ in range(6):
            recreated.write([entry(rows_in=9, rows_clean=9)])
        recreated.close()
        deadline = time.monotonic() + 60
        while FAMILY.name not in fold.troubles:
            assert time.monotonic() < deadline
            # The check of partitions, every few seconds, must not be what finds it.
            fold._checked_at = time.monotonic()
            fold.step(wait_s=0.2)
        assert "is another" in fold.troubles[FAMILY.name]
        assert store.counts(FAMILY.name).totals["rows_in"] == 2


def test_a_ledger_whose_unfolded_records_were_removed_is_refused(connection: Connection, ledger: LedgerWriter) -> None:
    ledger.write([entry(rows_in=1, rows_clean=1)])
    report(connection)
    ledger.write([entry(rows_in=2, rows_clean=2)])
    admin = connection.admin()
    admin.delete_records({TopicPartition(ledger.topic, 0): 3})
    admin.close()
    with pytest.raises(CoverageError, match=r"offset 2 of .*ledger/0, which holds \[3, 4\): records were removed"):
        report(connection)


def test_rebuilding_gives_the_same_report(connection: Connection, ledger: LedgerWriter) -> None:
    written = filled(ledger, seed=6)
    before = report(connection)
    written += filled(ledger, seed=7)
    rebuild(connection)
    after = report(connection)
    assert as_folded(after) == without_minutes(folded(written))
    assert before["rows_in"] < after["rows_in"]
    rebuild(connection)
    assert report(connection) == after


def test_the_fold_of_another_namespace_is_refused(connection: Connection, ledger: LedgerWriter) -> None:
    report(connection)
    settings: Settings = connection.settings.model_copy(update={"namespace": f"{connection.settings.namespace}-other"})
    other = Connection(settings, connection.servers)
    with pytest.raises(CoverageError, match="set namespace and data_dir back"):
        report(other)
