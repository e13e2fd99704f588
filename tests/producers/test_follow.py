"""A following producer's decisions, with a fake board and a fake cell assignment; the raw topic is real."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name, write_offsets
from producers.follow import Cell, Follower, FollowProgress, Send
from producers.requests import CellAssignment, RequestBoard
from schema.errors import ProducerError
from schema.record import RAW
from schema.requests import Account, Request
from schema.scenario import FAMILY

CELLS = list(FAMILY.cells())


@dataclass
class FakeBoard:
    """A RequestBoard of given deficits, {number of the cell: rows missing}; `look` and `read` call hooks."""

    missing: dict[int, int]
    account: Account = field(default_factory=lambda: Account({}))
    known: bool = True
    on_look: Callable[[FakeBoard], None] = lambda board: None
    on_read: Callable[[FakeBoard], None] = lambda board: None

    def look(self) -> None:
        self.on_look(self)

    def read(self, wait_s: float) -> bool:
        self.on_read(self)
        return False

    def requests(self, partitions: Iterable[int] | None = None) -> list[Request]:
        return [Request(CELLS[number], 0, deficit) for number, deficit in self.missing.items() if deficit]


@dataclass
class FakeAssignment:
    """A CellAssignment of all cells; `hold` returns the `answers` in order, then always True."""

    answers: list[bool] = field(default_factory=list)
    partitions: frozenset[int] = frozenset({0})
    changes: int = 1

    def stay(self) -> None:
        pass

    def hold(self) -> bool:
        return self.answers.pop(0) if self.answers else True


@dataclass
class Rows:
    """The sizes of the batches made and sent; if `counts`, sent rows reduce the board's deficits."""

    board: FakeBoard
    counts: bool = True
    made: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    @contextmanager
    def make(self, cells: Sequence[Cell], first: int) -> Iterator[Send]:
        self.made.append(len(cells))

        def send() -> None:
            self.sent.append(len(cells))
            for cell in cells if self.counts else ():
                self.board.missing[CELLS.index(dict(cell))] -= 1

        yield send


@pytest.fixture
def raw(connection: Connection) -> str:
    ensure_topics(connection, [FAMILY.name])
    return topic_name(connection.settings, FAMILY.name, RAW)


def run(
    connection: Connection, board: FakeBoard, rows: Rows, assignment: FakeAssignment | None = None
) -> FollowProgress:
    shares = cast(CellAssignment, assignment or FakeAssignment())
    return Follower(connection, FAMILY, rows.make, 10, cast(RequestBoard, board), shares).run(None)


def send_anything(connection: Connection, raw: str) -> None:
    producer = connection.producer()
    producer.send(raw, b"x", partition=1).get(timeout=30)
    producer.close()


def test_batches_fill_the_deficits_exactly(connection: Connection, raw: str) -> None:
    board = FakeBoard({3: 14, 5: 9})
    rows = Rows(board)
    done = run(connection, board, rows)
    assert rows.sent == [10, 10, 3]
    assert board.missing == {3: 0, 5: 0}
    assert (done.rows_sent, done.rounds, done.open_cells) == (23, 3, 0)


def test_a_batch_is_not_sent_once_its_cells_are_lost(connection: Connection, raw: str) -> None:
    board = FakeBoard({3: 4})
    rows = Rows(board)
    assert run(connection, board, rows, FakeAssignment(answers=[False, False])).rows_sent == 4
    assert (rows.made, rows.sent) == ([4, 4, 4], [4])


def test_nothing_is_sent_before_raw_is_accounted_for(connection: Connection, raw: str) -> None:
    send_anything(connection, raw)
    board = FakeBoard({3: 4})
    rows = Rows(board)
    reads = [0]

    def read(board: FakeBoard) -> None:
        reads[0] += 1
        assert not rows.made or reads[0] > 4
        if reads[0] == 4:
            board.account = Account(write_offsets(connection, raw))

    board.on_read = read
    assert run(connection, board, rows).rows_sent == 4
    assert reads[0] > 4


def test_moved_rows_are_waited_for(connection: Connection, raw: str) -> None:
    """The account reaches the due offsets, but one row has moved beyond them and is counted only there."""
    board = FakeBoard({3: 1})
    rows = Rows(board)
    reads = [0]

    def read(board: FakeBoard) -> None:
        reads[0] += 1
        if reads[0] == 2:
            send_anything(connection, raw)
            board.account = Account({}, moved=1)
        if reads[0] == 5:
            board.missing, board.account = {}, Account(write_offsets(connection, raw), moved=1)

    board.on_read = read
    assert run(connection, board, rows).rows_sent == 0


def test_following_ends_only_after_reading_to_the_current_end(connection: Connection, raw: str) -> None:
    """The requests read first show no deficit; those published later do."""

    def look(board: FakeBoard) -> None:
        board.known, board.on_look = False, lambda board: None

    def read(board: FakeBoard) -> None:
        if not board.known:
            board.known, board.missing = True, {3: 4}
            board.on_read = lambda board: None

    board = FakeBoard({}, on_look=look, on_read=read)
    assert run(connection, board, Rows(board)).rows_sent == 4


def test_a_cell_whose_rows_never_count_is_given_up(connection: Connection, raw: str) -> None:
    board = FakeBoard({3: 2})
    rows = Rows(board, counts=False)
    with pytest.raises(ProducerError, match="coverage report scenario"):
        run(connection, board, rows)
    assert rows.sent == [2] * 6
