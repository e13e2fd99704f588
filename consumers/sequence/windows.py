"""The global sequence of a feed: windows of rows and the batches they are cut into, from any cursor on.

One pass has these levels. The spec and the cursor alone decide each:

1. Phases. Without a curriculum there is one phase.
2. Streams. Each source gives its rows in the order of its blocks (`blocks`).
3. Windows. The sources fill a window with exact shares (`mixing`). A window that a source cannot fill is
   the phase's last.
4. Batches. The window is shuffled, bucketed and cut (`planning`). Rows that cannot fill a batch are dropped. Rows that
   were retracted after the spec was made are dropped from their batches (`retracted`).

Ranks, workers and tensors play no part here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import polars as pl

from broker.clients import Connection
from consumers.sequence.cursor import Cursor, Place
from consumers.sequence.lineage import TOKENS
from consumers.sequence.mixing import last_quotas, quotas
from consumers.sequence.packing import plan_packed
from consumers.sequence.planning import BatchShape, PlannedBatch, interleaved, plan
from consumers.sequence.retracted import dropped_from, read_retracted
from consumers.sequence.sources import TopicCheck
from consumers.sequence.spec import FeedSpec
from consumers.sequence.stream import KeptColumns, Selection, SourceStream

# Batches to a window without shuffling, bucketing or mixing: many make concatenation cheap, few come sooner.
_PLAIN_WINDOW_BATCHES = 16
# Bytes that a row takes in a window besides its text: numbers, lineage, offsets of buffers.
_ROW_BYTES = 64
_FIRST_STEP_ROWS = 64
# Rows to a window without shuffling, bucketing or mixing whose batches are cut by tokens.
_PLAIN_WINDOW_ROWS = 4096


@dataclass(frozen=True)
class Window:
    """Rows that are in memory at once, and their batches.

    Attributes:
        rows: the rows, with lineage columns.
        batches: the rows of each batch, in the order of the sequence.
        start: the cursor before the window's first batch, even if the feed resumes within the window.
        too_long: rows of the pass, up to the window's end, that were left out because of their length.
        dropped: rows of the pass, up to the window's end, that were dropped because they could not fill a batch.
    """

    rows: pl.DataFrame
    batches: list[PlannedBatch]
    start: Cursor
    too_long: int
    dropped: int

    def after(self, batch: int) -> Cursor:
        """Return the cursor after the window's batch with this index."""
        given = batch + 1
        return replace(self.start, batch=given, batches=self.start.batches + given)


def window_rows(spec: FeedSpec) -> int:
    """Return the rows of a full window of the feed: whole batches, if batches are cut by rows."""
    # Only the last row and the last batch of a packed window can have room left, so its windows are large.
    mixes = spec.bucket or spec.pack_tokens is not None
    plain = spec.shuffle_seed is None and not mixes and len(spec.sources) == 1
    if not _cut_by_rows(spec) or spec.batch_size is None:
        return max(_PLAIN_WINDOW_ROWS if plain else spec.window_rows, spec.least_rows)
    wanted = _PLAIN_WINDOW_BATCHES * spec.batch_size if plain else spec.window_rows
    return max(wanted // spec.batch_size, 1) * spec.batch_size


def _cut_by_rows(spec: FeedSpec) -> bool:
    """Return whether every batch but a window's last has `batch_size` of the window's rows."""
    return spec.batch_tokens is None and spec.pack_tokens is None


def windows(
    connection: Connection,
    spec: FeedSpec,
    cursor: Cursor,
    kept: KeptColumns,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Window]:
    """Yield the windows of one pass, starting with the window of `cursor`.

    Args:
        connection: the broker to read from.
        spec: the data that decides the sequence.
        cursor: where to begin.
        kept: the rows' columns, and their length in tokens, which decides the batches.
        share: (index, count): only the rows with `example_id mod count == index`.

    Raises:
        BrokerError: a topic is gone.
        FeedError: a topic was deleted and created again, no longer holds an offset, or holds a record that cannot be
            decoded.
    """
    topics = TopicCheck(connection, spec)
    topics.check()
    # `cursor.batches` already counts the earlier batches of the cursor's window.
    start = replace(cursor, batch=0, batches=cursor.batches - cursor.batch)
    if not start.places:
        start = replace(start, places=(Place(),) * len(spec.sources))
    retracted = read_retracted(connection, spec)
    for phase in range(cursor.phase, spec.phases):
        selection = Selection(spec, cursor.epoch, phase, share, kept, retracted)
        phase_windows = _phase_windows(connection, spec, replace(start, phase=phase), selection)
        while True:
            try:
                window = next(phase_windows)
            except StopIteration as ended:
                start = ended.value
                break
            # Offsets of a topic that was created again hold other rows.
            topics.check()
            yield window
            # Free this window before the next one is made.
            del window
    topics.check(now=True)


def _phase_windows(
    connection: Connection, spec: FeedSpec, start: Cursor, selection: Selection
) -> Generator[Window, None, Cursor]:
    """Yield the windows of one phase and return the cursor at which the next phase begins."""
    wanted = quotas([source.weight for source in spec.sources], window_rows(spec))
    lasting = [not source.repeat for source in spec.sources]
    with ExitStack() as opened:
        streams = [
            opened.enter_context(
                SourceStream(connection, spec, number, start.epoch, start.phase, start.places[number], selection)
            )
            for number in range(len(spec.sources))
        ]
        while True:
            start = replace(start, places=tuple(stream.place for stream in streams))
            pieces, full = _filled(streams, wanted, spec, selection.token_bytes)
            counts = [sum(piece.height for piece in taken) for taken in pieces]
            if not full:
                kept = last_quotas([source.weight for source in spec.sources], counts, lasting)
                pieces = [_first(taken, rows) for taken, rows in zip(pieces, kept, strict=True)]
                counts = kept
            rows = pl.concat([pl.DataFrame(schema=selection.schema), *(piece for taken in pieces for piece in taken)])
            del pieces
            if rows.height:
                batches = _plan(spec, start, rows, counts)
                dropped = start.dropped + rows.height - sum(len(batch.sequences) for batch in batches)
                yield Window(
                    rows, dropped_from(rows, batches), start, sum(stream.too_long for stream in streams), dropped
                )
                start = replace(start, window=start.window + 1, batches=start.batches + len(batches), dropped=dropped)
            # Free this window before the next one is read.
            del rows
            if not full:
                # Rows that are too long are counted over the whole pass.
                return replace(start, places=tuple(Place(too_long=stream.too_long) for stream in streams))


def _filled(
    streams: Sequence[SourceStream], wanted: list[int], spec: FeedSpec, token_bytes: int
) -> tuple[list[list[pl.DataFrame]], bool]:
    """Return each source's rows for a window as pieces, and whether every source had enough.

    The window grows in steps that keep the sources' shares, until it has all wanted rows or `window_bytes` bytes. The
    rows alone decide where it ends.
    """
    taken: list[list[pl.DataFrame]] = [[] for _ in streams]
    whole = sum(wanted)
    # A window that ends early still holds whole batches, unless several sources share them.
    whole_batches = spec.batch_size if _cut_by_rows(spec) and len(streams) == 1 else None
    unit = whole_batches or spec.least_rows
    rows = window_bytes = 0
    step = _FIRST_STEP_ROWS
    while rows < whole:
        if rows:
            room = max(spec.window_bytes - window_bytes, 0) * rows // window_bytes
            # Half the room, because later rows may be longer.
            step = min(2 * step, -(-room // 2))
            if step < min(unit, _FIRST_STEP_ROWS):
                break
        target = min(-(-(rows + step) // unit) * unit, whole)
        for number, stream in enumerate(streams):
            share = wanted[number] * target // whole - wanted[number] * rows // whole
            pieces = stream.take(share)
            taken[number] += pieces
            taken_rows = sum(piece.height for piece in pieces)
            window_bytes += _ROW_BYTES * taken_rows + token_bytes * sum(int(piece[TOKENS].sum()) for piece in pieces)
            share -= taken_rows
            if share:
                # The other sources give the rows that they have, up to their part of the window.
                for other, rest in enumerate(streams[number + 1 :], number + 1):
                    taken[other] += rest.take(wanted[other] * target // whole - wanted[other] * rows // whole)
                return taken, False
        rows = target
    return taken, True


def _first(pieces: list[pl.DataFrame], rows: int) -> list[pl.DataFrame]:
    return [pl.concat(pieces)[:rows]] if pieces else []


def _plan(spec: FeedSpec, start: Cursor, rows: pl.DataFrame, counts: list[int]) -> list[PlannedBatch]:
    seeds = None if spec.shuffle_seed is None else (spec.shuffle_seed, start.epoch, start.window)
    shape = BatchShape(spec.batch_size, spec.batch_tokens, spec.bucket, spec.least_rows)
    tokens = rows[TOKENS].to_numpy()
    order = interleaved(counts) if len(counts) > 1 else None
    if spec.pack_tokens is not None:
        return plan_packed(tokens, spec.pack_tokens, shape, seeds, order)
    return [PlannedBatch(batch, int(tokens[batch].sum())) for batch in plan(tokens, shape, seeds, order)]
