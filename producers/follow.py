"""Following requests: fill the largest deficits first, and stop when there is none.

Every round of a producer:

1. Read the requests, and stay in the group that shares them out. No open request anywhere: done.
2. Wait until the requests take into account all that stood in raw when this producer last sent rows or was given
   cells, and what refining wrote to raw anew of it: only then is what they ask for what is missing, whoever sent
   before, and however that one ended.
3. Make exactly what its own cells lack, largest deficit first, one batch at most.
4. Ask the group whether the cells are still its own, for it may have slept through its session; send the batch if they
   are, and go back to 1.

A cell belongs to one producer at a time, and its deficit is filled again only when the batch before is counted: so a
cell ends exactly at its minimum. Only a producer that sleeps through its session within step 4, which takes some
milliseconds, can exceed it, by one batch.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from broker.clients import Connection
from broker.kept_clients import keeping_clients
from broker.topics import ensure_topics, has_records, topic_name, undecided, write_offsets
from producers.requests import CellAssignment, RequestBoard
from schema.errors import ProducerError
from schema.family import Family
from schema.record import RAW
from schema.requests import Account, Request

_READ_S = 0.1
# How often raw itself is asked whether what is not accounted for is anything at all.
_LOOK_S = 1.0
# Rows that were sent for a cell this many times without one of them counting: another will not help.
_TRIES = 6
# Rows that refining moves on are waited for this many times: somebody else's may move without end.
_MOVES = 3

Cell = Mapping[str, str]
# Sends rows; all are acknowledged when it returns.
Send = Callable[[], None]
# Makes one row for each cell, numbered from the second argument on; a context in which what it gives can send them.
Make = Callable[[Sequence[Cell], int], AbstractContextManager[Send]]


@dataclass(frozen=True)
class FollowProgress:
    """Where a following producer stands: what it sent, and what is open, anybody's."""

    rows_sent: int
    rounds: int
    open_cells: int
    rows_missing: int


@keeping_clients
def follow(
    connection: Connection,
    family: Family,
    make: Make,
    batch_rows: int,
    on_progress: Callable[[FollowProgress], None] | None = None,
) -> FollowProgress:
    """Fill the requests of `family` until there are none; return what was done.

    Raises:
        ProducerError: nothing publishes requests, what was sent is not accounted for within
            `settings.follow_patience_s`, or cells stay open whatever is sent for them.
        BrokerError: the broker cannot be reached; whatever `make`, and what it returns, raise.
    """
    ensure_topics(connection, [family.name])
    with RequestBoard(connection, family) as board, CellAssignment(connection, family) as shares:
        return Follower(connection, family, make, batch_rows, board, shares).run(on_progress)


class Follower:
    """One producer's rounds, over a board and its shares of it."""

    def __init__(
        self,
        connection: Connection,
        family: Family,
        make: Make,
        batch_rows: int,
        board: RequestBoard,
        shares: CellAssignment,
    ) -> None:
        self._connection = connection
        self._family = family
        self._make = make
        self._batch_rows = batch_rows
        self._board = board
        self._shares = shares
        self._raw = topic_name(connection.settings, family.name, RAW)
        self._rows = self._rounds = 0
        self._changes = shares.changes
        # What must be accounted for before anything is sent, None where raw has to be looked at; and how often it may
        # yet be looked at again because rows moved on.
        self._due: Account | None = None
        self._moves = _MOVES
        self._look_at = 0.0
        # What each cell lacked when rows were last sent for it, and how often none of them counted.
        self._asked: dict[str, int] = {}
        self._vain: Counter[str] = Counter()

    def run(self, on_progress: Callable[[FollowProgress], None] | None) -> FollowProgress:
        """Go round until no request is open; raises as `follow`."""
        moved_at, last = time.monotonic(), None
        while True:
            # 1.
            self._shares.stay()
            self._board.read(_READ_S)
            requests = self._board.requests()
            progress = FollowProgress(self._rows, self._rounds, len(requests), sum(one.deficit for one in requests))
            if on_progress is not None:
                on_progress(progress)
            if self._board.known and not requests:
                # Only as of now, and of all partitions there are, is it over.
                self._board.look()
                if self._board.known:
                    return progress
            # 2.
            settled = self._board.known and self._settled()
            state = progress, self._board.account, self._shares.changes
            # Whoever has filled its own cells waits for the others, for as long as they take.
            if state != last or (settled and self._shares.partitions):
                moved_at, last = time.monotonic(), state
            self._look_patient(time.monotonic() - moved_at, progress)
            # 3. 4.
            if settled:
                mine = self._worth_filling(self._board.requests(self._shares.partitions))
                if mine:
                    self._fill(mine)

    def _settled(self) -> bool:
        """Whether all that stood in raw at the last send or assignment is in the requests, where it moved on to too."""
        if self._changes != self._shares.changes:
            self._changes, self._due, self._moves = self._shares.changes, None, _MOVES
        now = self._board.account
        if self._due is None:
            # Not the last stable offsets: what stands behind somebody's open transaction will be counted too.
            self._due = Account(write_offsets(self._connection, self._raw), now.moved)
            self._look_at = time.monotonic() + _LOOK_S
            # What was published meanwhile is read first.
            self._board.look()
            return False
        if not (now.reaches(self._due) or self._nothing_short(now, self._due)):
            return False
        if now.moved == self._due.moved or self._moves == 0:
            return True
        # What moved on stands in raw by now, perhaps beyond what was due.
        self._moves -= 1
        self._due = None
        return False

    def _nothing_short(self, now: Account, due: Account) -> bool:
        """Whether no record stands between what is accounted for and what is due; asked once in a while."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_S
        # Offsets of transaction markers are never accounted for: nothing but such may stand there.
        short = {part: now.raw.get(part, 0) for part, end in due.raw.items() if now.raw.get(part, 0) < end}
        if undecided(self._connection, self._raw).keys() & short.keys():
            return False
        return not any(has_records(self._connection, self._raw, short).values())

    def _worth_filling(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests of cells of which a row was counted in the last tries.

        Raises:
            ProducerError: there are requests, and all were tried in vain.
        """
        for request in requests:
            asked = self._asked.pop(request.label, None)
            if asked is not None:
                self._vain[request.label] = self._vain[request.label] + 1 if asked == request.deficit else 0
        worth = [request for request in requests if self._vain[request.label] < _TRIES]
        if requests and not worth:
            raise ProducerError(
                f"{len(requests)} cells of {self._family.name} stay open though rows were sent {_TRIES} times, "
                f"e.g. {requests[0].label}: `feedmill coverage report {self._family.name}` says why rows are rejected"
            )
        return worth

    def _fill(self, requests: Sequence[Request]) -> None:
        cells: list[Cell] = []
        asked: dict[str, int] = {}
        for request in requests:
            count = min(request.deficit, self._batch_rows - len(cells))
            cells += [request.cell] * count
            asked[request.label] = request.deficit
            if len(cells) == self._batch_rows:
                break
        # Mixed, so that no share gate sees one bin of an axis after another.
        random.Random(self._rounds).shuffle(cells)  # noqa: S311 - an order, not a secret
        with self._make(cells, self._rows) as send:
            # 4.
            if self._shares.hold():
                send()
                self._asked |= asked
                self._rows += len(cells)
                self._rounds += 1
        # Whoever holds the cells now, raw has to be looked at before anything else is sent.
        self._due, self._moves = None, _MOVES

    def _look_patient(self, still_s: float, progress: FollowProgress) -> None:
        if still_s < self._connection.settings.follow_patience_s:
            return
        if not self._board.known:
            raise ProducerError(
                f"nobody publishes requests of {self._family.name}: start `feedmill coverage serve` (or `feedmill up`)"
            )
        if not self._shares.partitions:
            raise ProducerError(
                f"{progress.open_cells} cells are open, other producers hold them all, and nothing was accounted for "
                f"during {still_s:.0f} s: fewer producers are enough"
            )
        raise ProducerError(
            f"{progress.open_cells} cells are open and nothing was accounted for during {still_s:.0f} s: see that "
            "`feedmill worker` and `feedmill coverage serve` run"
        )
