"""The ledger topics, on a real Kafka, into the store."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kafka.structs import TopicPartition

from broker.clients import Connection
from broker.topics import delete_topics, extents
from schema.errors import CoverageError
from schema.record import LEDGER, Envelope
from schema.registry import FAMILIES
from schema.settings import Settings
from streams.coverage import fold as fold_module
from streams.coverage.client import open_coverage, rebuild
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.store import CoverageStore
from tests.streams.ledgers import FAMILY, LedgerWriter, entry, folded, random_entry, said, without_minutes

NAME = FAMILY.name


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


def test_what_is_committed_is_folded_once_over_several_folds(connection: Connection, ledger: LedgerWriter) -> None:
    written = []
    for seed in range(3):
        written += filled(ledger, seed)
        with folding(connection) as (store, fold):
            fold.to_end()
            fold.to_end()
            assert store.counts(NAME).totals == folded(written)["totals"]
    assert said(report(connection)) == without_minutes(folded(written))


def test_positions_stand_past_transaction_markers(connection: Connection, ledger: LedgerWriter) -> None:
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


def test_a_record_that_is_no_entry_stops_the_fold_where_it_stands(connection: Connection, ledger: LedgerWriter) -> None:
    ledger.write([entry(rows_in=3, rows_clean=3)])
    with folding(connection) as (_, fold):
        fold.to_end()
    ledger.write([entry(rows_in=4, rows_clean=4)])
    ledger.send(b"junk", Envelope(NAME, LEDGER, 1, run="r", chunk=0, part=0, rows=1).headers())
    for _ in range(2):
        with folding(connection) as (store, fold):
            with pytest.raises(CoverageError, match=r"ledger/0 offset 4 is no ledger record \(garbage"):
                fold.to_end()
            assert store.counts(NAME).totals["rows_in"] in (3, 7)
            assert store.counts(NAME).next_offsets[0] <= 4


def test_a_ledger_made_anew_is_refused_until_rebuilt(connection: Connection, ledger: LedgerWriter) -> None:
    filled(ledger, seed=5)
    report(connection)
    delete_topics(connection, [ledger.topic])
    anew = LedgerWriter(connection)
    anew.write([entry(rows_in=9, rows_clean=9)])
    anew.close()
    with pytest.raises(CoverageError, match="is another: run `feedmill coverage rebuild`"):
        report(connection)
    rebuild(connection)
    assert report(connection)["rows_in"] == 9


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
    assert said(after) == without_minutes(folded(written))
    assert before["rows_in"] < after["rows_in"]
    rebuild(connection)
    assert report(connection) == after


def test_the_fold_of_another_namespace_is_refused(connection: Connection, ledger: LedgerWriter) -> None:
    report(connection)
    settings: Settings = connection.settings.model_copy(update={"namespace": f"{connection.settings.namespace}-other"})
    other = Connection(settings, connection.servers)
    with pytest.raises(CoverageError, match="set namespace and data_dir back"):
        report(other)
