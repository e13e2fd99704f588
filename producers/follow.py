"""Follow the requests of a family: fill the largest deficits first, and stop when no request is open.

Each round of a producer:

1. Read the requests, and stay a member of the consumer group that divides the cells. Return if no request is open.
2. Wait until coverage has counted every raw record that existed when this producer last sent rows or was assigned
   cells. Rows of those records that refining wrote to raw again (rerouted or augmented) must be counted too. Only then
   are the deficits exact, even if another producer sent rows before and was killed.
3. Make the rows that its own cells lack, largest deficit first, at most one batch.
4. Ask the consumer group whether the cells are still its own, because its session may have expired. If they are, send
   the batch. Go back to 1.

A cell belongs to one producer at a time and is filled again only after its last batch is counted, so a cell ends
exactly at its minimum. There is one exception: if a producer's session expires within the few milliseconds of step 4,
its cells can exceed their minimum by one batch.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import polars as pl

from broker.clients import Connection
from broker.committed import has_records
from broker.kept_clients import keeping_clients
from broker.topics import ensure_topics, topic_name, undecided, write_offsets
from producers.requests import CellAssignment, RequestBoard
from producers.sink import RecordSender, encode_block, raw_layout
from schema.errors import ProducerError
from schema.family import Family
from schema.record import RAW
from schema.requests import Account, Request

_READ_S = 0.1
# Seconds between checks of whether the offsets not yet accounted for hold any record.
_LOOK_S = 1.0
# A cell is given up after this many batches in a row of which no row counted.
_TRIES = 6
# Moved rows are waited for at most this many times, because other producers' rows may move without end.
_MOVES = 3

Cell = Mapping[str, str]
# Sends rows; all are acknowledged when it returns.
Send = Callable[[], None]
# Makes one row for each cell, numbered from the second argument on; the context's value sends the rows.
Make = Callable[[Sequence[Cell], int], AbstractContextManager[Send]]
# Makes one identified row for each cell, from a seed and the number of the first row.
Fill = Callable[[Sequence[Cell], int, int], pl.DataFrame]


@dataclass(frozen=True)
class FollowProgress:
    """Progress of a following producer: the rows it sent, and the open cells of all producers."""

    rows_sent: int
    rounds: int
    open_cells: int
    rows_missing: int


def maker(connection: Connection, family: Family, fill: Fill, run: str, seed: int) -> Make:
    """Return a function that makes the rows of a batch with `fill` in this process, and sends them as part of `run`."""

    @contextmanager
    def make(cells: Sequence[Cell], first: int) -> Iterator[Send]:
        layout = raw_layout(connection, family)
        records = encode_block(fill(cells, seed, first), family, layout, first)
        with RecordSender(connection, family, run) as sender:
            sender.get_ready()

            def send() -> None:
                for record in records:
                    sender.send_record(record)
                sender.flush()

            yield send

    return make


@keeping_clients
def follow(
    connection: Connection,
    family: Family,
    make: Make,
    batch_rows: int,
    on_progress: Callable[[FollowProgress], None] | None = None,
) -> FollowProgress:
    """Fill the requests of `family` until none is open; return the final progress.

    Raises:
        ProducerError: no service publishes requests, nothing was accounted for during `settings.follow_patience_s`,
            or cells stay open although rows were sent for them.
        BrokerError: the broker cannot be reached.
        Exception: any error of `make` or of the `Send` that it yields.
    """
    ensure_topics(connection, [family.name])
    with RequestBoard(connection, family) as board, CellAssignment(connection, family) as shares:
        return Follower(connection, family, make, batch_rows, board, shares).run(on_progress)


class Follower:
    """The rounds of one producer, given the board of requests and the producer's assigned cells."""

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
        # The account that must be reached before the next batch; None until raw's end offsets are read.
        self._due: Account | None = None
        # How many more times moved rows may be waited for.
        self._moves = _MOVES
        self._look_at = 0.0
        # By cell: its deficit when rows were last sent, and the number of batches in a row of which no row counted.
        self._asked: dict[str, int] = {}
        self._vain: Counter[str] = Counter()

    def run(self, on_progress: Callable[[FollowProgress], None] | None) -> FollowProgress:
        """Repeat the rounds until no request is open; raises as `follow`."""
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
                # Check again up to the topic's current end, including partitions added meanwhile.
                self._board.look()
                if self._board.known:
                    return progress
            # 2.
            settled = self._board.known and self._settled()
            state = progress, self._board.account, self._shares.changes
            # A producer that has filled its own cells waits for the others without a time limit.
            if state != last or (settled and self._shares.partitions):
                moved_at, last = time.monotonic(), state
            self._look_patient(time.monotonic() - moved_at, progress)
            # 3. 4.
            if settled:
                mine = self._worth_filling(self._board.requests(self._shares.partitions))
                if mine:
                    self._fill(mine)

    def _settled(self) -> bool:
        """Whether the requests account for all raw records of the last send or assignment, moved rows included."""
        if self._changes != self._shares.changes:
            self._changes, self._due, self._moves = self._shares.changes, None, _MOVES
        now = self._board.account
        if self._due is None:
            # Not the last stable offsets, because records behind an open transaction will be counted too.
            self._due = Account(write_offsets(self._connection, self._raw), now.moved)
            self._look_at = time.monotonic() + _LOOK_S
            # Requests published meanwhile are read first.
            self._board.look()
            return False
        if not (now.reaches(self._due) or self._nothing_short(now, self._due)):
            return False
        if now.moved == self._due.moved or self._moves == 0:
            return True
        # Moved rows are in raw by now, perhaps beyond the due offsets: read the end offsets again.
        self._moves -= 1
        self._due = None
        return False

    def _nothing_short(self, now: Account, due: Account) -> bool:
        """Whether no record lies between the accounted and the due offsets; checked every `_LOOK_S`."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_S
        # Offsets of transaction markers are never accounted for, so the gap may hold only markers.
        short = {part: now.raw.get(part, 0) for part, end in due.raw.items() if now.raw.get(part, 0) < end}
        if undecided(self._connection, self._raw).keys() & short.keys():
            return False
        return not any(has_records(self._connection, self._raw, short).values())

    def _worth_filling(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests of cells that counted a row within the last `_TRIES` batches.

        Raises:
            ProducerError: requests are open, and every cell was tried `_TRIES` times in vain.
        """
        for request in requests:
            asked = self._asked.pop(request.label, None)
            if asked is not None:
                self._vain[request.label] = self._vain[request.label] + 1 if asked == request.deficit else 0
        worth = [request for request in requests if self._vain[request.label] < _TRIES]
        if requests and not worth:
            raise ProducerError(
                f"{len(requests)} cells of {self._family.name} stay open although rows were sent {_TRIES} times, "
                f"e.g. {requests[0].label}: run `feedmill coverage report {self._family.name}` to see why rows are "
                "rejected"
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
        # Shuffled, so that a share gate does not see one bin of an axis at a time.
        random.Random(self._rounds).shuffle(cells)  # noqa: S311 - an order, not a secret
        with self._make(cells, self._rows) as send:
            # 4.
            if self._shares.hold():
                send()
                self._asked |= asked
                self._rows += len(cells)
                self._rounds += 1
        # Raw's end offsets must be read before the next batch, whether or not this batch was sent.
        self._due, self._moves = None, _MOVES

    def _look_patient(self, still_s: float, progress: FollowProgress) -> None:
        if still_s < self._connection.settings.follow_patience_s:
            return
        if not self._board.known:
            raise ProducerError(
                f"no coverage service publishes requests of {self._family.name}: start `feedmill coverage serve` "
                "(or `feedmill up`)"
            )
        if not self._shares.partitions:
            raise ProducerError(
                f"{progress.open_cells} cells are open, all of them belong to other producers, and no row was "
                f"accounted for during follow_patience_s ({still_s:.0f} s): run fewer producers"
            )
        raise ProducerError(
            f"{progress.open_cells} cells are open and no row was accounted for during follow_patience_s "
            f"({still_s:.0f} s): check that `feedmill worker` and `feedmill coverage serve` run"
        )
