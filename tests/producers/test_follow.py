"""What a producer that follows decides, over a board and a group that say what the test wants; raw is a real topic."""

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
class Said:
    """A board: what it shows, and what a look at the topic changes."""

    missing: dict[int, int]
    account: Account = field(default_factory=lambda: Account({}))
    known: bool = True
    on_look: Callable[[Said], None] = lambda said: None
    on_read: Callable[[Said], None] = lambda said: None

    def look(self) -> None:
        self.on_look(self)

    def read(self, wait_s: float) -> bool:
        self.on_read(self)
        return False

    def requests(self, partitions: Iterable[int] | None = None) -> list[Request]:
        return [Request(CELLS[number], 0, deficit) for number, deficit in self.missing.items() if deficit]


@dataclass
class Group:
    """CellAssignment of everything; `answers` are those to whether they are still held, yes once there are no more."""

    answers: list[bool] = field(default_factory=list)
    partitions: frozenset[int] = frozenset({0})
    changes: int = 1

    def stay(self) -> None:
        pass

    def hold(self) -> bool:
        return self.answers.pop(0) if self.answers else True


@dataclass
class Rows:
    """What is made and what is sent, in cells; `counts` says whether what is sent fills the board's gaps."""

    said: Said
    counts: bool = True
    made: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    @contextmanager
    def make(self, cells: Sequence[Cell], first: int) -> Iterator[Send]:
        self.made.append(len(cells))

        def send() -> None:
            self.sent.append(len(cells))
            for cell in cells if self.counts else ():
                self.said.missing[CELLS.index(dict(cell))] -= 1

        yield send


@pytest.fixture
def raw(connection: Connection) -> str:
    ensure_topics(connection, [FAMILY.name])
    return topic_name(connection.settings, FAMILY.name, RAW)


def run(connection: Connection, said: Said, rows: Rows, group: Group | None = None) -> FollowProgress:
    board, shares = cast(RequestBoard, said), cast(CellAssignment, group or Group())
    return Follower(connection, FAMILY, rows.make, 10, board, shares).run(None)


def send_anything(connection: Connection, raw: str) -> None:
    producer = connection.producer()
    producer.send(raw, b"x", partition=1).get(timeout=30)
    producer.close()


def test_batches_fill_what_is_missing_and_no_more(connection: Connection, raw: str) -> None:
    said = Said({3: 14, 5: 9})
    rows = Rows(said)
    done = run(connection, said, rows)
    assert rows.sent == [10, 10, 3]
    assert said.missing == {3: 0, 5: 0}
    assert (done.rows_sent, done.rounds, done.open_cells) == (23, 3, 0)


def test_what_was_made_is_not_sent_once_the_cells_are_lost(connection: Connection, raw: str) -> None:
    said = Said({3: 4})
    rows = Rows(said)
    assert run(connection, said, rows, Group(answers=[False, False])).rows_sent == 4
    assert (rows.made, rows.sent) == ([4, 4, 4], [4])


def test_nothing_is_sent_before_raw_is_accounted_for(connection: Connection, raw: str) -> None:
    send_anything(connection, raw)
    said = Said({3: 4})
    rows = Rows(said)
    reads = [0]

    def read(said: Said) -> None:
        reads[0] += 1
        assert not rows.made or reads[0] > 4
        if reads[0] == 4:
            said.account = Account(write_offsets(connection, raw))

    said.on_read = read
    assert run(connection, said, rows).rows_sent == 4
    assert reads[0] > 4


def test_rows_that_refining_moves_on_are_waited_for(connection: Connection, raw: str) -> None:
    """The account reaches what was due, and says that a row of it stands elsewhere, beyond: only there it counts."""
    said = Said({3: 1})
    rows = Rows(said)
    reads = [0]

    def read(said: Said) -> None:
        reads[0] += 1
        if reads[0] == 2:
            send_anything(connection, raw)
            said.account = Account({}, moved=1)
        if reads[0] == 5:
            said.missing, said.account = {}, Account(write_offsets(connection, raw), moved=1)

    said.on_read = read
    assert run(connection, said, rows).rows_sent == 0


def test_it_is_over_only_as_of_now(connection: Connection, raw: str) -> None:
    """What was read may be of a time when nothing was missing; what stands behind it says otherwise."""

    def look(said: Said) -> None:
        said.known, said.on_look = False, lambda said: None

    def read(said: Said) -> None:
        if not said.known:
            said.known, said.missing = True, {3: 4}
            said.on_read = lambda said: None

    said = Said({}, on_look=look, on_read=read)
    assert run(connection, said, Rows(said)).rows_sent == 4


def test_a_cell_whose_rows_never_count_is_given_up(connection: Connection, raw: str) -> None:
    said = Said({3: 2})
    rows = Rows(said, counts=False)
    with pytest.raises(ProducerError, match="coverage report scenario"):
        run(connection, said, rows)
    assert rows.sent == [2] * 6
