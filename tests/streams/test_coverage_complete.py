"""A ledger that lacks entries never balances: removed entries are reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka import TopicPartition

from broker.clients import Connection
from broker.topics import delete_topics
from schema.record import LEDGER
from schema.reduction import FAMILY
from schema.registry import families_under
from streams.coverage.client import open_coverage, rebuild
from streams.coverage.dashboard import fragment
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.report import coverage_report
from streams.coverage.store import CoverageStore
from tests.broker.recreation import create_again
from tests.streams.refined import RefinedTopics, rows_of


@pytest.fixture
def topics(connection: Connection) -> Iterator[RefinedTopics]:
    """Three refined records in partition 0 and one in partition 3."""
    refined = RefinedTopics(connection)
    rows = rows_of(0, 9)
    for part in (rows[:3], rows[3:6], rows[6:]):
        refined.whole(part)
    refined.whole(rows_of(3, 2), partition=3)
    refined.settle()
    yield refined
    refined.close()


def report(connection: Connection) -> dict[str, Any]:
    with open_coverage(connection) as coverage:
        return coverage.report(FAMILY.name)


def remove_before(topics: RefinedTopics, stage: str, offset: int) -> None:
    with closing(topics.connection.admin()) as admin:
        admin.delete_records({TopicPartition(topics.names[stage], 0): offset})


def test_a_whole_ledger_balances(topics: RefinedTopics) -> None:
    assert rebuild(topics.connection) == []
    answer = report(topics.connection)
    assert answer["balanced"]
    assert (answer["ledger_removed"], answer["missing_entries"]) == ([], [])


def test_a_shortened_ledger_that_is_folded_again_does_not_balance(topics: RefinedTopics) -> None:
    remove_before(topics, LEDGER, 6)
    lines = rebuild(topics.connection)
    assert any("ledger partition 0 begins at offset 6" in line for line in lines)
    answer = report(topics.connection)
    # Only partition 3 is left.
    assert answer["rows_in"] == answer["rows_clean"] == 2
    assert not answer["balanced"]
    assert answer["ledger_removed"] == [{"partition": 0, "before_offset": 6}]
    page = fragment({FAMILY.name: FAMILY}, [answer])
    assert "begins at offset 6" in page


def test_a_store_that_counted_the_entries_before_they_were_removed_stays_right(topics: RefinedTopics) -> None:
    assert report(topics.connection)["balanced"]
    remove_before(topics, LEDGER, 4)
    answer = report(topics.connection)
    assert answer["balanced"]
    assert answer["rows_in"] == 11


def test_a_ledger_that_was_made_again_does_not_balance_with_nothing_in_it(topics: RefinedTopics) -> None:
    create_again(topics.connection, topics.names[LEDGER])
    lines = rebuild(topics.connection)
    assert any("no entries for raw offsets 0-4 of partition 0" in line for line in lines)
    answer = report(topics.connection)
    assert (answer["rows_in"], answer["cells_covered"]) == (0, 0)
    assert not answer["balanced"]
    assert [missing["partition"] for missing in answer["missing_entries"]] == [0, 3]
    # Records refined from now on have their entries; the earlier entries stay missing.
    topics.whole(rows_of(0, 40).tail(1))
    topics.settle()
    answer = report(topics.connection)
    assert answer["rows_in"] == 1
    assert not answer["balanced"]


def test_records_that_wait_and_records_that_retention_removed_are_not_missing(topics: RefinedTopics) -> None:
    topics.raw(rows_of(0, 40).tail(1))
    assert report(topics.connection)["balanced"]
    remove_before(topics, "raw", 2)
    assert rebuild(topics.connection) == []
    assert report(topics.connection)["balanced"]


def test_the_service_finds_missing_entries_by_itself(topics: RefinedTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.coverage.fold._COMPLETE_CHECK_S", 0.1)
    delete_topics(topics.connection, [topics.names[LEDGER]])
    families = families_under(topics.connection.settings)
    store = CoverageStore(coverage_folder(topics.connection.settings), families)
    fold = LedgerFold(topics.connection, store, families)
    stop = threading.Event()
    running = threading.Thread(target=fold.run, args=(stop, lambda folded: None))
    running.start()
    try:
        deadline = time.monotonic() + 60
        while coverage_report(FAMILY, store.counts(FAMILY.name))["balanced"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        stop.set()
        running.join()
        fold.close()
        store.close()
