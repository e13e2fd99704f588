"""Deficits on the requests topic: producers read what coverage publishes, across restarts and junk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka.admin import MemberToRemove

from broker.clients import Connection
from broker.topics import ensure_topics, extents, topic_name
from producers.requests import CellAssignment, RequestBoard
from schema.family import cell_label
from schema.record import REQUESTS
from schema.registry import FAMILIES
from schema.requests import ACCOUNTED, Account
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.requests import RequestPublisher, _changes, _worth_publishing
from streams.coverage.store import CoverageStore
from tests.streams.ledgers import FAMILY, LedgerWriter, entry

POSSIBLE = [cell_label(cell) for cell in FAMILY.cells() if FAMILY.cell_possible(cell)]


@pytest.fixture
def fold(connection: Connection) -> Iterator[LedgerFold]:
    store = CoverageStore(coverage_folder(connection.settings), FAMILIES)
    folding = LedgerFold(connection, store, FAMILIES)
    yield folding
    folding.close()
    store.close()


def publish(connection: Connection, fold: LedgerFold) -> None:
    """Publish as a newly started service does."""
    fold.to_end()
    with closing(RequestPublisher(connection, fold._store, FAMILIES)) as publisher:
        publisher.publish()
        assert not publisher.behind


def read(connection: Connection) -> RequestBoard:
    board = RequestBoard(connection, FAMILY)
    read_on(board, connection)
    return board


def read_on(board: RequestBoard, connection: Connection) -> None:
    """Read to the present end of the topic."""
    deadline = time.monotonic() + 60
    while board.positions != ends(connection):
        assert time.monotonic() < deadline
        board.read(0.1)


def ends(connection: Connection) -> dict[int, int]:
    topic = topic_name(connection.settings, FAMILY.name, REQUESTS)
    return {partition: extent.end for partition, extent in extents(connection, topic).items()}


def test_changed_deficits_are_published_and_all_deficits_read(connection: Connection, fold: LedgerFold) -> None:
    with read(connection) as board:
        assert not board.known
    publish(connection, fold)
    with read(connection) as board:
        assert board.known
        assert board.account == Account({})
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)
        assert {request.deficit for request in board.requests()} == {FAMILY.cell_minimum}

        # One cell is filled, by an entry for raw offset 41 of partition 2: the others stay open.
        writer = LedgerWriter(connection)
        filled = {"axis": "cell", "bin": POSSIBLE[5], "rows": 3}
        writer.write_last([entry(41, source_partition=2, rows_in=3, rows_clean=3, coverage=[filled])])
        publish(connection, fold)
        read_on(board, connection)
        assert sorted(request.label for request in board.requests()) == sorted(set(POSSIBLE) - {POSSIBLE[5]})
        assert board.account == Account({2: 42})
        # The cells of the partitions are all cells, each once.
        shared = [request.label for partition in ends(connection) for request in board.requests([partition])]
        assert sorted(shared) == sorted(set(POSSIBLE) - {POSSIBLE[5]})

    # A restarted service has nothing to publish.
    before = ends(connection)
    publish(connection, fold)
    assert ends(connection) == before


def test_junk_and_keys_of_another_day_do_not_last(connection: Connection, fold: LedgerFold) -> None:
    publish(connection, fold)
    topic = topic_name(connection.settings, FAMILY.name, REQUESTS)
    with closing(connection.producer()) as producer:
        for key, value in ((b"\xff\xfe", b"x"), (b"accounted", b"nonsense"), (POSSIBLE[0].encode(), b"{}")):
            producer.send(topic, value, key=key, partition=0).get(timeout=30)
        # As another partition count would have placed it.
        producer.send(topic, b"{}", key=POSSIBLE[1].encode(), partition=3).get(timeout=30)
    with read(connection) as board:
        # Readers ignore it ...
        assert len(board.requests()) == len(POSSIBLE)
    publish(connection, fold)
    with read(connection) as board:
        # ... and the next publisher sets it right.
        assert board.known
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)


def test_producers_share_the_partitions_and_take_over_those_of_one_that_leaves(
    connection: Connection, fold: LedgerFold
) -> None:
    with CellAssignment(connection, FAMILY) as first:
        with CellAssignment(connection, FAMILY) as second:
            deadline = time.monotonic() + 60
            while not len(first.partitions) == len(second.partitions) == 2:
                assert time.monotonic() < deadline
                first.stay()
                second.stay()
            assert first.partitions | second.partitions == set(ends(connection))
            assert not first.partitions & second.partitions
        changes = first.changes
        while len(first.partitions) < 4:
            assert time.monotonic() < deadline + 60
            first.stay()
        assert first.partitions == set(ends(connection))
        assert first.changes > changes


def test_a_producer_that_was_removed_from_its_group_gets_an_error(connection: Connection) -> None:
    ensure_topics(connection, [FAMILY.name])
    with CellAssignment(connection, FAMILY) as shares, closing(connection.admin()) as admin:
        assert not shares.hold()
        joined(shares)
        assert shares.hold()
        group = f"{connection.settings.namespace}.{FAMILY.name}.producers"
        member = shares._consumer.group_metadata().member_id
        admin.remove_group_members(group, [MemberToRemove(member_id=member)])
        # It still owns the cells in its own view, like a producer that was suspended.
        assert shares.partitions
        assert not shares.hold()
        joined(shares)
        assert shares.hold()


def joined(shares: CellAssignment) -> None:
    changes, deadline = shares.changes, time.monotonic() + 60
    while not shares.partitions or shares.changes == changes:
        assert time.monotonic() < deadline
        shares.stay()


def test_partitions_that_are_added_are_published_to_and_read(connection: Connection, fold: LedgerFold) -> None:
    fold.to_end()
    topic = topic_name(connection.settings, FAMILY.name, REQUESTS)
    with (
        closing(RequestPublisher(connection, fold._store, FAMILIES)) as publisher,
        read(connection) as board,
        CellAssignment(connection, FAMILY) as shares,
    ):
        publisher.publish()
        read_on(board, connection)
        joined(shares)
        with closing(connection.admin()) as admin:
            admin.create_partitions({topic: 6})
        while len(ends(connection)) < 6:
            time.sleep(0.1)
        # Nobody takes four of six for all there is.
        board.look()
        assert not board.known
        publisher._checked_at = 0.0
        assert publisher.due
        publisher.publish()
        board.look()
        read_on(board, connection)
        assert board.known
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)
        assert board.requests([5])
        while len(shares.partitions) < 6:
            joined(shares)
        assert shares.hold()


def test_records_that_another_publisher_overwrites_are_corrected(
    connection: Connection, fold: LedgerFold, caplog: pytest.LogCaptureFixture
) -> None:
    fold.to_end()
    topic = topic_name(connection.settings, FAMILY.name, REQUESTS)
    with closing(RequestPublisher(connection, fold._store, FAMILIES)) as publisher, read(connection) as board:
        publisher.publish()
        with closing(connection.producer()) as producer:
            for partition in ends(connection):
                producer.send(topic, None, key=POSSIBLE[3].encode(), partition=partition).get(timeout=30)
        for offset in range(2):
            LedgerWriter(connection).write_last([entry(offset)])
            fold.to_end()
            publisher.publish()
        read_on(board, connection)
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)
    assert "one coverage service" in caplog.text


def test_the_account_comes_after_its_cells_unless_it_falls() -> None:
    old = {"a": b"1", "b": b"2", ACCOUNTED: Account({0: 7, 1: 7}).encode()}
    higher, lower = Account({0: 9, 1: 7}).encode(), Account({0: 9, 1: 6}).encode()
    assert _changes(old, {"a": b"1", "c": b"3", ACCOUNTED: higher}) == ["b", "c", ACCOUNTED]
    assert _changes(old, {"a": b"1", "c": b"3", ACCOUNTED: lower}) == [ACCOUNTED, "b", "c"]
    assert _changes({**old, ACCOUNTED: b"nonsense"}, old) == [ACCOUNTED]
    assert _changes(old, old) == []


def test_no_account_is_published_when_no_cell_is_open() -> None:
    published = [{ACCOUNTED: b"1"}, {ACCOUNTED: b"1"}]
    assert not _worth_publishing(published, [{ACCOUNTED: b"2"}, {ACCOUNTED: b"2"}])
    assert _worth_publishing(published, [{ACCOUNTED: b"2"}, {ACCOUNTED: b"2", "a": b"x"}])
    assert _worth_publishing([{ACCOUNTED: b"1"}, {ACCOUNTED: b"1", "a": b"x"}], published)
    assert _worth_publishing([{}, {}], published)
