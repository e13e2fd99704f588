"""The feed: a family's clean topic as padded tensor batches, for a torch training loop.

A pass over a feed runs in five steps, all on whole columns:

1. Bounds. A snapshot fixes the end offsets of every partition when the feed is made; an epoch is a pass over them.
2. Order. Records come one of each partition in turn, so that the order follows from the offsets and not from timing.
3. Windows. Rows of the split, short enough, are gathered into windows: the unit that is held, shuffled and bucketed.
4. Plan. A seed, the epoch and the window's number decide which rows make which batch.
5. Batches. A family's tensor form turns a batch's rows into tensors.

In `follow` mode the feed never ends: step 2 takes records as they arrive, and a window also closes when `linger_s` has
passed since its first row.

Under `torch.utils.data.DataLoader` with W workers, every worker goes through steps 1 to 4 and makes each W-th batch of
a snapshot, so the batches and their order are those of a single process; the cost is that each worker decodes the
whole topic. In `follow` mode, where no order is shared, worker w takes the rows with `example_id mod W == w`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Literal

import numpy as np
import polars as pl
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from broker.clients import Connection, connect
from broker.topics import Extent, extents, topic_name
from consumers.batches import Batch
from consumers.forms import form_of
from consumers.planning import Indices, plan
from consumers.reading import TopicReader, gone
from consumers.windows import CleanRows, Windows
from schema.errors import FeedError, UsageError
from schema.family import SPLITS
from schema.record import CLEAN
from schema.registry import family_named
from schema.settings import Settings

_log = logging.getLogger("feedmill.feed")

# Batches to a window where nothing is shuffled or bucketed: many make concatenation cheap, few make it prompt.
_PLAIN_WINDOW_BATCHES = 16


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """What is seldom changed.

    Attributes:
        max_tokens: rows with more tokens are left out, counted in `Batch.too_long` and told in the log; None takes
            the family's limit.
        window_rows: rows held at once for shuffling and bucketing (a reduction row takes about 0.4 KiB).
        bucket: batch rows of similar length together, which saves padding.
        linger_s: in `follow` mode, how long a row may wait for its batch to fill.
        start: the first offset to read per partition; partitions not named start where the topic does.
    """

    max_tokens: int | None = None
    window_rows: int = 65_536
    bucket: bool = False
    linger_s: float = 1.0
    start: Mapping[int, int] | None = None


class Feed(IterableDataset[Batch]):
    """Batches of one split of a family's clean topic.

    Args:
        source: settings to connect by, or a connection.
        family: a family with a tensor form.
        split: "train", "val" or "test"; None takes all rows.
        batch_size: rows to a batch (B).
        mode: "snapshot" ends with the topic as it was when the feed was made; "follow" never ends.
        shuffle_seed: shuffles rows within windows; None keeps the topic's order.
        options: what is seldom changed.

    Raises:
        UnknownFamilyError, UsageError: the family, split, mode or a size cannot be used.
        BrokerUnavailableError: no broker answers.
        BrokerError: there is no clean topic yet.
        FeedError: `options.start` names offsets that the topic does not hold. Iterating raises it where retention
            overtakes the reader, or a record cannot be read.
    """

    def __init__(
        self,
        source: Settings | Connection,
        family: str,
        *,
        split: str | None = "train",
        batch_size: int = 64,
        mode: Literal["snapshot", "follow"] = "snapshot",
        shuffle_seed: int | None = None,
        options: FeedOptions | None = None,
    ) -> None:
        super().__init__()
        options = options or FeedOptions()
        self.family = family_named(family)
        self._form = form_of(family)
        self.max_tokens = self._form.max_tokens if options.max_tokens is None else options.max_tokens
        _check(split, batch_size, mode, options.window_rows, self.max_tokens)
        self.split, self.batch_size, self.mode, self.shuffle_seed = split, batch_size, mode, shuffle_seed
        self.options = options
        self.epoch = 0
        self.connection = source if isinstance(source, Connection) else connect(source)
        self.topic = topic_name(self.connection.settings, family, CLEAN)
        self._bounds = self._pin(options.start or {})

    @property
    def offsets(self) -> dict[int, tuple[int, int]]:
        """{partition: (from, to)} of a pass, half-open; in `follow` mode `to` is where the topic ended at the start."""
        return {partition: (bound.begin, bound.end) for partition, bound in self._bounds.items()}

    def set_epoch(self, epoch: int) -> None:
        """Give the next passes the number `epoch`, on which the shuffle depends; call it before the pass begins."""
        self.epoch = epoch

    def loader(self, workers: int = 0) -> DataLoader[Batch]:
        """Return a DataLoader over this feed; its workers inherit no thread pool of this process."""
        return DataLoader(self, batch_size=None, num_workers=workers, multiprocessing_context=_clean_start(workers))

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return self._snapshot(index, count) if self.mode == "snapshot" else self._follow(index, count)

    def _pin(self, start: Mapping[int, int]) -> dict[int, Extent]:
        held = extents(self.connection, self.topic)
        unknown = sorted(set(start) - set(held))
        if unknown:
            raise FeedError(
                f"{self.topic} has {len(held)} partitions, and the start names partition {unknown[0]}: "
                "start from offsets of this topic"
            )
        for partition, offset in start.items():
            if not held[partition].begin <= offset <= held[partition].end:
                raise FeedError(gone(self.topic, partition, offset, held[partition]))
        return {partition: Extent(start.get(partition, extent.begin), extent.end) for partition, extent in held.items()}

    def _reader(self) -> TopicReader:
        starts = {partition: bound.begin for partition, bound in self._bounds.items()}
        return TopicReader(self.connection, self.topic, starts, FeedError)

    def _rows(self) -> tuple[CleanRows, Windows]:
        rows = CleanRows(self.family, self._form, self.split, self.max_tokens)
        plain = self.shuffle_seed is None and not self.options.bucket
        window_rows = self.batch_size * _PLAIN_WINDOW_BATCHES if plain else self.options.window_rows
        return rows, Windows(rows.schema, window_rows, self.batch_size)

    def _snapshot(self, index: int, count: int) -> Iterator[Batch]:
        rows, windows = self._rows()
        made = 0
        for number, window in enumerate(self._fixed_windows(rows, windows)):
            planned = self._plan(window, number)
            first_mine = (index - made) % count
            made += len(planned)
            yield from self._batches(window, planned[first_mine::count], rows.too_long)

    def _fixed_windows(self, rows: CleanRows, windows: Windows) -> Iterator[pl.DataFrame]:
        stops = {partition: bound.end for partition, bound in self._bounds.items()}
        with self._reader() as reader:
            for record in reader.interleaved(stops):
                yield from windows.add(rows.of(record, self.topic))
        self._tell_left_out(rows.too_long)
        yield windows.flush()

    def _follow(self, index: int, count: int) -> Iterator[Batch]:
        rows, windows = self._rows()
        mine = None if count == 1 else pl.col("example_id") % count == index
        for number, window in enumerate(self._live_windows(rows, windows, mine)):
            yield from self._batches(window, self._plan(window, number), rows.too_long)

    def _live_windows(self, rows: CleanRows, windows: Windows, mine: pl.Expr | None) -> Iterator[pl.DataFrame]:
        linger_s, told = self.options.linger_s, False
        closes_at = time.monotonic() + linger_s
        with self._reader() as reader:
            while True:
                # An empty window closes never, so its wait begins anew with every turn.
                if not windows.height:
                    closes_at = time.monotonic() + linger_s
                for record in reader.arriving(max(closes_at - time.monotonic(), 0)):
                    yield from windows.add(rows.of(record, self.topic, mine))
                if windows.height and time.monotonic() >= closes_at:
                    yield windows.flush()
                if rows.too_long and not told:
                    self._tell_left_out(rows.too_long)
                    told = True

    def _plan(self, window: pl.DataFrame, number: int) -> list[Indices]:
        tokens = window.select(self._form.tokens.alias("tokens"))["tokens"].to_numpy()
        seeds = None if self.shuffle_seed is None else (self.shuffle_seed, self.epoch, number)
        return plan(tokens, self.batch_size, seeds, self.options.bucket)

    def _batches(self, window: pl.DataFrame, planned: list[Indices], too_long: int) -> Iterator[Batch]:
        if not planned:
            return
        # Rows are put in batch order once, so that every batch is a slice.
        encoded = self._form.encode(window[np.concatenate(planned)], self.topic)
        start = 0
        for picked in planned:
            yield encoded.batch(start, start + len(picked), too_long)
            start += len(picked)

    def _tell_left_out(self, too_long: int) -> None:
        if too_long:
            _log.warning(
                "%s: %d rows of more than %d tokens were left out; raise max_tokens to have them",
                self.topic,
                too_long,
                self.max_tokens,
            )


def _clean_start(workers: int) -> BaseContext | None:
    """Return how to start workers: forked from a process that has loaded this module and run nothing, where that is."""
    if not workers:
        return None
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _check(split: str | None, batch_size: int, mode: str, window_rows: int, max_tokens: int) -> None:
    if split is not None and split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if mode not in ("snapshot", "follow"):
        raise UsageError(f"unknown mode {mode!r}: use snapshot or follow")
    if batch_size < 1 or window_rows < 1 or max_tokens < 1:
        raise UsageError("batch_size, window_rows and max_tokens must be at least 1")
