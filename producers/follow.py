"""Following requests: fill the largest deficits first, and stop when there is none.

Every round of a producer:

1. Read the requests, and stay in the group that shares them out. No open request anywhere: done.
2. Wait until the requests take into account all that stood in raw when this producer last sent rows or was given
   cells: only then is what they ask for what is missing, whoever sent before, and however that one ended.
3. Make exactly what its own cells lack, largest deficit first, one batch at most; send it, and go back to 1.

A cell belongs to one producer at a time, and its deficit is filled again only when the batch before is counted: so a
cell ends exactly at its minimum. Only a producer that loses a cell between 2 and 3, by sleeping through its session,
can exceed it, by one batch.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from broker.clients import Connection
from broker.topics import ensure_topics, extents, has_records, topic_name
from producers.requests import RequestBoard, Shares
from schema.errors import ProducerError
from schema.family import Family
from schema.record import RAW
from schema.requests import Request

_READ_S = 0.1
# How often raw itself is asked whether what is not accounted for is anything at all.
_LOOK_S = 1.0
# Rows that were sent for a cell this many times without one of them counting: another will not help.
_TRIES = 6

Cell = Mapping[str, str]
# Sends one row for each cell, numbered from the second argument on; all are acknowledged when it returns.
Send = Callable[[Sequence[Cell], int], None]


@dataclass(frozen=True)
class FollowProgress:
    """Where a following producer stands: what it sent, and what is open, anybody's."""

    rows_sent: int
    rounds: int
    open_cells: int
    rows_missing: int


def follow(
    connection: Connection,
    family: Family,
    send: Send,
    batch_rows: int,
    on_progress: Callable[[FollowProgress], None] | None = None,
) -> FollowProgress:
    """Fill the requests of `family` until there are none; return what was done.

    Raises:
        ProducerError: nothing publishes requests, what was sent is not accounted for within
            `settings.follow_patience_s`, or cells stay open whatever is sent for them.
        BrokerError: the broker cannot be reached; whatever `send` raises.
    """
    ensure_topics(connection, [family.name])
    with RequestBoard(connection, family) as board, Shares(connection, family) as shares:
        return _Follower(connection, family, send, batch_rows, board, shares).run(on_progress)


class _Follower:
    def __init__(
        self, connection: Connection, family: Family, send: Send, batch_rows: int, board: RequestBoard, shares: Shares
    ) -> None:
        self._connection = connection
        self._family = family
        self._send = send
        self._batch_rows = batch_rows
        self._board = board
        self._shares = shares
        self._raw = topic_name(connection.settings, family.name, RAW)
        self._rows = self._rounds = 0
        self._changes = shares.changes
        # Raw as it must be accounted for before anything is sent; None where it has to be looked at.
        self._due: dict[int, int] | None = None
        self._look_at = 0.0
        # What each cell lacked when rows were last sent for it, and how often none of them counted.
        self._asked: dict[str, int] = {}
        self._vain: Counter[str] = Counter()

    def run(self, on_progress: Callable[[FollowProgress], None] | None) -> FollowProgress:
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
                return progress
            state = progress, self._board.accounted, self._shares.changes
            if state != last:
                moved_at, last = time.monotonic(), state
            self._look_patient(time.monotonic() - moved_at, progress)
            # 2. 3.
            if self._board.known and self._settled():
                mine = self._worth_filling(self._board.requests(self._shares.partitions))
                if mine:
                    self._fill(mine)

    def _settled(self) -> bool:
        """Whether all that stood in raw at the last send or assignment is in the requests."""
        if self._changes != self._shares.changes:
            self._changes, self._due = self._shares.changes, None
        if self._due is None:
            self._due = {partition: extent.end for partition, extent in extents(self._connection, self._raw).items()}
            # What was published meanwhile is read first.
            return False
        accounted = self._board.accounted
        short = {part: accounted.get(part, 0) for part, end in self._due.items() if accounted.get(part, 0) < end}
        if not short:
            return True
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_S
        # Offsets of transaction markers are never accounted for: nothing but such may stand there.
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
        for request in requests:
            count = min(request.deficit, self._batch_rows - len(cells))
            cells += [request.cell] * count
            self._asked[request.label] = request.deficit
            if len(cells) == self._batch_rows:
                break
        # Mixed, so that no share gate sees one bin of an axis after another.
        random.Random(self._rounds).shuffle(cells)  # noqa: S311 - an order, not a secret
        self._send(cells, self._rows)
        self._rows += len(cells)
        self._rounds += 1
        self._due = None

    def _look_patient(self, still_s: float, progress: FollowProgress) -> None:
        if still_s < self._connection.settings.follow_patience_s:
            return
        if not self._board.known:
            raise ProducerError(
                f"nobody publishes requests of {self._family.name}: start `feedmill coverage serve` (or `feedmill up`)"
            )
        raise ProducerError(
            f"{progress.open_cells} cells are open and nothing was accounted for during {still_s:.0f} s: see that "
            "`feedmill worker` and `feedmill coverage serve` run"
        )
