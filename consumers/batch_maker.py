"""Make the batches of one process: a feed's windows as tensors, cut to a rank's rows and a loader worker's turns."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import get_worker_info

from broker.clients import Connection
from consumers.batches import Batch, Stamp
from consumers.feed_options import FeedOptions
from consumers.follow import next_pass
from consumers.loader_workers import LoaderWorkers
from consumers.packed_rows import RowLayout
from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import TOKENS
from consumers.sequence.spec import FeedSpec
from consumers.sequence.stream import KeptColumns
from consumers.sequence.windows import Window, windows
from consumers.tensor_form import TensorForm
from schema.errors import FeedError

_log = logging.getLogger("feedmill.feed")


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches that are this process's part of a feed.

    Attributes:
        spec: the data that decides the sequence.
        form: the family's tensor form.
        options: the feed's options: rank, ranks, how to follow.
        loader_workers: in a worker of a `FeedLoader`, what it shares with the other workers.
    """

    spec: FeedSpec
    form: TensorForm
    options: FeedOptions
    loader_workers: LoaderWorkers | None

    @property
    def share(self) -> tuple[int, int]:
        """(index, count): in `follow` mode this process takes the rows with `example_id mod count == index`."""
        worker = get_worker_info()
        # The workers of a `FeedLoader` agree on the passes. Any other worker follows by itself.
        index, count = (0, 1) if worker is None or self.loader_workers is not None else (worker.id, worker.num_workers)
        if self.options.together is not None:
            return index, count
        return self.options.rank * count + index, self.options.world * count

    @property
    def turn(self) -> tuple[int, int]:
        """(index, count): this process makes every count-th batch, from batch `index` on."""
        worker = get_worker_info()
        alone = worker is None or (self.spec.mode == "follow" and self.loader_workers is None)
        return (0, 1) if worker is None or alone else (worker.id, worker.num_workers)

    def batches(self, connection: Connection, cursor: Cursor, after_own: bool) -> Iterator[Batch | None]:
        """Yield the batches of this rank and worker, and None while no records have arrived.

        A `snapshot` yields one pass; `follow` mode yields pass after pass.

        Args:
            connection: the broker to read from.
            cursor: where to begin.
            after_own: whether `cursor` follows this worker's own last batch; otherwise, that of the whole feed.
        """
        index, count = self.turn
        share = self.share if self.spec.mode == "follow" else (0, 1)
        kept = KeptColumns.of(self.form, (*self.form.columns, "example_id"))
        # The number of this worker's next batch in the pass.
        mine = cursor.batches - 1 + count if after_own else cursor.batches + index
        while True:
            spec = self.spec.of_pass(cursor)
            end, dropped = cursor.batches, cursor.dropped
            for window in windows(connection, spec, cursor, kept, share):
                first = window.start.batches
                end, dropped = first + len(window.batches), window.dropped
                numbers = range(max(mine, first), end, count)
                yield from self._tensors(window, [number - first for number in numbers])
                mine = numbers[-1] + count if numbers else mine
                # Free this window before the next one is read.
                del window
            if index == 0:
                self._warn_dropped(dropped)
            if self.spec.mode == "snapshot":
                return
            # The workers' turns continue across passes.
            mine -= end
            for following in self._next_passes(connection, cursor):
                if following is not None:
                    cursor = following
                    break
                if self.loader_workers is not None and self.loader_workers.stopped:
                    return
                yield None
            else:
                # The ranks agreed to stop.
                return

    def _next_passes(self, connection: Connection, cursor: Cursor) -> Iterator[Cursor | None]:
        """Yield None until the pass after that of `cursor` can begin, and then its cursor."""
        worker = get_worker_info()
        if worker is not None and self.loader_workers is not None:
            if worker.id:
                return self.loader_workers.received_passes(worker.id)
            return self.loader_workers.sent_to_others(next_pass(connection, self.spec, cursor, self.options.linger_s))
        own = next_pass(connection, self.spec, cursor, self.options.linger_s)
        return own if self.options.together is None else self.options.together.agreed(own)

    def _tensors(self, window: Window, numbers: list[int]) -> Iterator[Batch]:
        """Yield this rank's share of the window's batches with these indices."""
        if not numbers:
            return
        encoded = self.form.encode(window.rows, self.spec.topics)
        world = self.options.ranks(self.spec.mode)
        rank = self.options.rank if world > 1 else 0
        tokens = window.rows[TOKENS].to_numpy()
        for number in numbers:
            planned = window.batches[number]
            if planned.rows < world:
                raise FeedError(
                    f"a batch holds {planned.rows} rows, too few for {world} ranks, because rows are left out that "
                    "were retracted since the state was saved: begin a new run without the state"
                )
            sequences, row = planned.of_rank(rank, world)
            layout = None
            if row is not None and self.spec.pack_tokens is not None:
                layout = RowLayout.of(row, tokens[sequences], self.spec.pack_tokens)
            stamp = Stamp(window.after(number), planned.rows, planned.tokens, window.too_long, layout)
            yield encoded.batch(sequences, stamp)

    def _warn_dropped(self, dropped: int) -> None:
        # Ranks that share batches drop the same rows, so only one logs them.
        if dropped and (self.options.rank == 0 or self.options.ranks(self.spec.mode) == 1):
            _log.warning(
                "%s: %d rows were dropped, because they could not fill a batch of least_rows %d",
                ", ".join(self.spec.topics),
                dropped,
                self.spec.least_rows,
            )
