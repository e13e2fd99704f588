"""Deficits on the requests topic: what coverage publishes is what producers read, across restarts and junk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from broker.clients import Connection
from broker.topics import extents, topic_name
from producers.requests import RequestBoard, Shares
from schema.family import cell_label
from schema.record import REQUESTS
from schema.registry import FAMILIES
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.requests import RequestPublisher
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
    """As a service does that was just started."""
    fold.to_end()
    with closing(RequestPublisher(connection, fold._store, FAMILIES)) as publisher:
        publisher.publish()
        assert not publisher.behind


def read(connection: Connection) -> RequestBoard:
    board = RequestBoard(connection, FAMILY)
    read_on(board, connection)
    return board


def read_on(board: RequestBoard, connection: Connection) -> None:
    """Read to the end of what is there now."""
    deadline = time.monotonic() + 60
    while board.positions != ends(connection):
        assert time.monotonic() < deadline
        board.read(0.1)


def ends(connection: Connection) -> dict[int, int]:
    topic = topic_name(connection.settings, FAMILY.name, REQUESTS)
    return {partition: extent.end for partition, extent in extents(connection, topic).items()}


def test_deficits_are_published_as_they_change_and_read_as_they_stand(connection: Connection, fold: LedgerFold) -> None:
    with read(connection) as board:
        assert not board.known
    publish(connection, fold)
    with read(connection) as board:
        assert board.known
        assert board.accounted == {}
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)
        assert {request.deficit for request in board.requests()} == {FAMILY.cell_minimum}

        # One cell is filled, by an entry for raw offset 41 of partition 2: the others stay open.
        writer = LedgerWriter(connection)
        filled = {"axis": "cell", "bin": POSSIBLE[5], "rows": 3}
        writer.write_last([entry(41, source_partition=2, rows_in=3, rows_clean=3, coverage=[filled])])
        publish(connection, fold)
        read_on(board, connection)
        assert sorted(request.label for request in board.requests()) == sorted(set(POSSIBLE) - {POSSIBLE[5]})
        assert board.accounted == {2: 42}
        # The cells of the partitions are all cells, each once.
        shared = [request.label for partition in ends(connection) for request in board.requests([partition])]
        assert sorted(shared) == sorted(set(POSSIBLE) - {POSSIBLE[5]})

    # A service started anew finds nothing to say.
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
        # Nobody stumbles over it ...
        assert len(board.requests()) == len(POSSIBLE)
    publish(connection, fold)
    with read(connection) as board:
        # ... and the next publisher sets it right.
        assert board.known
        assert sorted(request.label for request in board.requests()) == sorted(POSSIBLE)


def test_producers_share_the_partitions_and_take_over_what_one_leaves(connection: Connection, fold: LedgerFold) -> None:
    with Shares(connection, FAMILY) as first:
        with Shares(connection, FAMILY) as second:
            for _ in range(100):
                first.stay()
                second.stay()
                if len(first.partitions) == len(second.partitions) == 2:
                    break
            assert first.partitions | second.partitions == set(ends(connection))
            assert not first.partitions & second.partitions
        changes = first.changes
        for _ in range(100):
            first.stay()
            if len(first.partitions) == 4:
                break
        assert first.partitions == set(ends(connection))
        assert first.changes > changes
