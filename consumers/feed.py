"""The feed: a family's clean topics as padded tensor batches, for a torch training loop.

What a feed gives is one global sequence of batches that follows from a `FeedSpec` (sources with fixed offsets, filters,
seed, sizes) and nothing else: not from timing, workers or ranks (`consumers.sequence`). A `Cursor` of some numbers says
where in it a feed stands, so that a state is small and a resumed feed goes on with the very next batch.

In `snapshot` mode a pass goes over offsets that were fixed when the feed was made. In `follow` mode it goes over what
has come since the last pass began, and passes never end.

Ranks each take every R-th row of every global batch. A batch holds at least `least_rows` rows, so each rank has one.
The workers of `loader()` each make every W-th batch, and each of them reads the whole topic. In `follow` mode ranks
agree on no offsets, so rank r takes the rows with `example_id mod R == r`. Workers of a foreign loader share those rows
in the same way.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from broker.clients import Connection, connect
from broker.kept_clients import kept_clients
from consumers.batches import Batch, Stamp
from consumers.feed_options import FeedOptions, check_options
from consumers.follow import next_pass
from consumers.forms import form_of
from consumers.loader_workers import Failure, WorkerGroup, end_with_trainer
from consumers.prefetch import Prefetched
from consumers.sequence.cursor import Cursor
from consumers.sequence.predicates import Predicate
from consumers.sequence.sources import Source, pin, require_held
from consumers.sequence.spec import Curriculum, FeedSpec, FeedState, Passes, read_state, require_same
from consumers.sequence.windows import Window, windows
from schema.errors import FeedError, FeedmillError, UsageError
from schema.registry import family_named
from schema.settings import Settings

if TYPE_CHECKING:
    from consumers.loader import FeedLoader

__all__ = ["Curriculum", "Feed", "FeedOptions", "Source"]

_log = logging.getLogger("feedmill.feed")

DEFAULT_BATCH_SIZE = 64
# Batches made ahead take this much together, or are one.
_PREFETCH_BYTES = 64 * 1024 * 1024


class Feed(IterableDataset[Batch]):
    """Batches of one split of a family's clean topics.

    Args:
        source: settings to connect by, or a connection.
        family: a family with a tensor form.
        split: "train", "val" or "test"; None takes all rows.
        batch_size: rows to a global batch; a rank gets its share of them as B. 64, unless `batch_tokens` is set.
        mode: "snapshot" ends with the topics as they were when the feed was made; "follow" never ends.
        shuffle_seed: shuffles blocks of records, and rows within windows; None keeps the topics' order.
        options: what is seldom changed.

    Raises:
        UnknownFamilyError, UsageError: the family, split, mode or an option cannot be used.
        BrokerUnavailableError: no broker answers.
        BrokerError: there is no clean topic yet.
        FeedError: a source's start or stop names offsets that the topic does not hold. Iterating raises it where
            retention overtakes the reader, or a record cannot be read.
    """

    def __init__(
        self,
        source: Settings | Connection,
        family: str,
        *,
        split: str | None = "train",
        batch_size: int | None = None,
        mode: Literal["snapshot", "follow"] = "snapshot",
        shuffle_seed: int | None = None,
        options: FeedOptions | None = None,
    ) -> None:
        super().__init__()
        options = options or FeedOptions()
        self.family = family_named(family)
        self._form = form_of(family)
        if batch_size is None and options.batch_tokens is None:
            batch_size = DEFAULT_BATCH_SIZE
        spec = FeedSpec(
            family=family,
            schema_version=self.family.version,
            sources=(),
            mode=mode,
            split=split,
            batch_size=batch_size,
            batch_tokens=options.batch_tokens,
            max_tokens=self._form.max_tokens if options.max_tokens is None else options.max_tokens,
            shuffle_seed=shuffle_seed,
            block_rows=options.block_rows,
            window_rows=options.window_rows,
            window_bytes=options.window_bytes,
            bucket=options.bucket,
            where=None if options.where is None else Predicate.of(options.where, self.family.wire),
            curriculum=options.curriculum,
            least_rows=options.ranks(mode) if options.least_rows is None else options.least_rows,
        )
        check_options(spec, options)
        self.options = options
        self.connection = source if isinstance(source, Connection) else connect(source)
        with kept_clients(self.connection) as kept:
            measured_rows = None if shuffle_seed is None else options.block_rows
            pinned = tuple(pin(kept, family, each, measured_rows) for each in options.sources)
        self.spec = dataclasses.replace(spec, sources=pinned)
        self._start_over(0)
        self._passes: tuple[Passes, ...] = ()
        self._resume = False
        self._worker: tuple[int, int] | None = None
        self._group: WorkerGroup | None = None

    @property
    def epoch(self) -> int:
        """Number of the pass that goes on or comes next; in `follow` mode, of what came at once."""
        return self._cursor.epoch

    @property
    def mode(self) -> str:
        """`snapshot` or `follow`."""
        return self.spec.mode

    @property
    def split(self) -> str | None:
        """The split that is read; None for all rows."""
        return self.spec.split

    @property
    def batch_size(self) -> int | None:
        """Rows to a global batch, at most; None where only tokens limit it."""
        return self.spec.batch_size

    @property
    def shuffle_seed(self) -> int | None:
        """What shuffles; None keeps the topics' order."""
        return self.spec.shuffle_seed

    @property
    def max_tokens(self) -> int:
        """The length in tokens above which rows are left out."""
        return self.spec.max_tokens

    @property
    def topics(self) -> tuple[str, ...]:
        """Full names of the topics read."""
        return self.spec.topics

    @property
    def offsets(self) -> dict[str, dict[int, tuple[int, int]]]:
        """{topic: {partition: (from, to)}} of a pass, half-open; in `follow` mode, as they were at the start."""
        return {
            source.topic: {partition: (bound.begin, bound.end) for partition, bound in source.bounds.items()}
            for source in self.spec.sources
        }

    def set_epoch(self, epoch: int) -> None:
        """Make `epoch` the next pass, on whose number the shuffle depends.

        A pass that ends goes on to the next number by itself. Naming the pass that a loaded state is in has no effect.
        """
        if epoch != self._cursor.epoch:
            self._abandon()
            self._start_over(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the feed stands, after the last batch taken from it or its `loader()`: JSON values, no rows.

        On every rank of a snapshot it is the same.
        """
        return self._state().to_json()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a feed stood whose `state_dict` this is: the next batch is the one it would have given.

        The snapshot is the saved one, whatever has come since. Ranks may be fewer than they were, or more: as many as
        the state's `least_rows`, which this feed takes over unless its options name another.

        Raises:
            FeedError: it is no state of such a feed, its batches hold too few rows for the ranks, or the topic no
                longer holds what it needs; both values are named.
            BrokerError: a topic is gone.
        """
        state = read_state(state_dict)
        chosen = self.options.least_rows is not None
        require_same(state.spec, self.spec if chosen else replace(self.spec, least_rows=state.spec.least_rows))
        if state.spec.least_rows < (ranks := self.options.ranks(self.spec.mode)):
            raise FeedError(
                f"the state's batches hold at least {state.spec.least_rows} rows, too few for {ranks} ranks: resume "
                f"with at most {state.spec.least_rows}, or begin a new run with least_rows {ranks}"
            )
        share = self._share()
        if self.spec.mode == "follow" and state.share != share:
            raise FeedError(
                f"the state was saved by share {state.share[0]} of {state.share[1]} that follow, and this is share "
                f"{share[0]} of {share[1]}: follow with as many ranks and workers as before"
            )
        worker = get_worker_info()
        if state.worker is not None and (worker is None or state.worker != (worker.id, worker.num_workers)):
            raise FeedError(
                f"the state is that of loader worker {state.worker[0]} of {state.worker[1]}: load it with as many"
            )
        with kept_clients(self.connection) as kept:
            require_held(kept, state.spec, state.cursor)
        # The state may only name its filter; this feed's is the same, and can be run.
        self.spec = dataclasses.replace(state.spec, where=self.spec.where)
        self._cursor, self._passes = state.cursor, state.passes
        self._worker, self._resume = state.worker, True

    def manifest(self) -> dict[str, Any]:
        """Return what reproduces the rows that were taken so far, in order: for `feedmill replay --manifest`.

        Raises:
            FeedError: the feed follows, so what it gave depends on when it came.
        """
        if self.spec.mode == "follow":
            raise FeedError(
                "a feed that follows has no manifest, for its order depends on when rows came: replay its offsets with "
                "`feedmill replay --from --to`"
            )
        return self.state_dict()

    def loader(self, workers: int = 0) -> FeedLoader:
        """Return a DataLoader over this feed; its workers inherit no thread pool of this process."""
        from consumers.loader import FeedLoader

        if workers and self.options.together is not None:
            raise UsageError("ranks that follow together make their batches themselves: use a loader of 0 workers")
        return FeedLoader(self, workers)

    def __iter__(self) -> Iterator[Batch]:
        return self._taken(None)

    def taken_from_workers(self, start: Callable[[], Iterator[Batch]], group: WorkerGroup) -> Iterator[Batch]:
        """Yield one pass's batches as the workers make them that `start` starts; they share `group`."""
        # The workers take a copy of this feed as it is now: where it stands, and their group.
        self._group = group
        try:
            made = start()
        finally:
            self._group = None
            group.close_pipes()
        try:
            yield from self._taken(made)
        finally:
            group.stop()

    def _taken(self, elsewhere: Iterator[Any] | None) -> Iterator[Any]:
        """Yield one pass's batches and keep count of them; `elsewhere` brings them from a loader's workers."""
        if not self._resume:
            self._abandon()
            self._start_over(self._cursor.epoch)
        self._resume = False
        batches = self._prefetched() if elsewhere is None else elsewhere
        too_long = 0
        try:
            for batch in batches:
                if isinstance(batch, Failure):
                    if self._group is None:
                        raise batch.error
                    # A worker hands it on to its loader.
                    yield batch
                    return
                self._cursor, too_long = batch.cursor, batch.too_long
                yield batch
        finally:
            if isinstance(batches, Prefetched):
                batches.close()
        self._tell_left_out(too_long)
        self._passes = _with(self._passes, Passes(first=self._cursor.epoch, last=self._cursor.epoch))
        self._start_over(self._cursor.epoch + 1)

    def _state(self) -> FeedState:
        worker = get_worker_info()
        number = None if worker is None or self.spec.mode == "follow" else (worker.id, worker.num_workers)
        return FeedState(
            spec=self.spec,
            cursor=self._cursor,
            passes=self._passes,
            share=self._share() if self.spec.mode == "follow" else (0, 1),
            # A worker that has made no batch yet stands where its feed does.
            worker=number if self._worker or self._cursor.batches else None,
        )

    def _start_over(self, epoch: int) -> None:
        bounds = None
        if self.spec.mode == "follow":
            bounds = tuple(source.bounds for source in self.spec.sources)
        self._cursor = Cursor(epoch=epoch, bounds=bounds)
        self._worker = None

    def _abandon(self) -> None:
        """Note a pass that was broken off: its batches were given."""
        if self._cursor.batches:
            epoch = self._cursor.epoch
            self._passes = _with(self._passes, Passes(first=epoch, last=epoch, batches=self._cursor.batches))

    def _share(self) -> tuple[int, int]:
        """Return (index, count): in `follow` mode the rows with `example_id mod count == index` are this process's."""
        worker = get_worker_info()
        # A loader's group of workers agrees on the passes; workers of any other kind follow each for itself.
        index, count = (0, 1) if worker is None or self._group is not None else (worker.id, worker.num_workers)
        if self.options.together is not None:
            return index, count
        return self.options.rank * count + index, self.options.world * count

    def _turn(self) -> tuple[int, int]:
        """Return (index, count): this process makes every count-th batch, beginning with that index."""
        worker = get_worker_info()
        alone = worker is None or (self.spec.mode == "follow" and self._group is None)
        return (0, 1) if worker is None or alone else (worker.id, worker.num_workers)

    def _prefetched(self) -> Iterator[Any]:
        # A loader's workers are ahead of the training step already.
        if get_worker_info() is not None:
            return self._worker_batches()
        made = self._made()
        if self.options.prefetch:
            return Prefetched(made, self.options.prefetch, _held_bytes, _PREFETCH_BYTES)
        return (batch for batch in made if batch is not None)

    def _worker_batches(self) -> Iterator[Any]:
        """Yield what `_made` makes; in a loader's group of workers an error comes as the last item, a `Failure`."""
        end_with_trainer()
        try:
            yield from (batch for batch in self._made() if batch is not None)
        except FeedmillError as error:
            if self._group is None:
                raise
            yield Failure(error)

    def _made(self) -> Iterator[Batch | None]:
        """Yield the batches of this rank and worker; None now and then where there is nothing yet.

        Those of one pass in `snapshot` mode, and of pass after pass in `follow` mode.
        """
        # Open for as long as batches are made, so that a feed that waits for records opens none.
        with kept_clients(self.connection) as connection:
            yield from self._passes_of(connection)

    def _passes_of(self, connection: Connection) -> Iterator[Batch | None]:
        index, count = self._turn()
        share = self._share() if self.spec.mode == "follow" else (0, 1)
        cursor = self._cursor
        # Workers take turns, from where the feed stood or from the worker's own last batch.
        mine = cursor.batches + index if self._worker is None else cursor.batches - 1 + count
        while True:
            spec = self.spec if cursor.bounds is None else self.spec.with_bounds(cursor.bounds)
            end, dropped = cursor.batches, cursor.dropped
            for window in windows(connection, spec, cursor, share):
                first = window.start.batches
                end, dropped = first + len(window.batches), window.dropped
                numbers = range(max(mine, first), end, count)
                yield from self._batches(window, [number - first for number in numbers])
                mine = numbers[-1] + count if numbers else mine
                # Not two windows at once: the next one is read without it.
                del window
            if index == 0:
                self._tell_dropped(dropped)
            if self.spec.mode == "snapshot":
                return
            # The turns go on from one pass to the next.
            mine -= end
            for following in self._next_passes(connection, cursor):
                if following is not None:
                    cursor = following
                    break
                if self._group is not None and self._group.stopped:
                    return
                yield None
            else:
                # The ranks agreed to stop.
                return

    def _next_passes(self, connection: Connection, cursor: Cursor) -> Iterator[Cursor | None]:
        """Yield None until there is a pass after that of `cursor`, and then the next one's cursor."""
        worker = get_worker_info()
        if worker is not None and self._group is not None:
            if worker.id:
                return self._group.passes_told(worker.id)
            return self._group.tell_others(next_pass(connection, self.spec, cursor, self.options.linger_s))
        own = next_pass(connection, self.spec, cursor, self.options.linger_s)
        return own if self.options.together is None else self.options.together.agreed(own)

    def _batches(self, window: Window, numbers: list[int]) -> Iterator[Batch]:
        """Yield this rank's share of the window's batches with these indices."""
        if not numbers:
            return
        encoded = self._form.encode(window.rows, self.topics)
        world = self.options.ranks(self.spec.mode)
        rank = self.options.rank if world > 1 else 0
        for number in numbers:
            rows = window.batches[number]
            yield encoded.batch(rows[rank::world], Stamp(window.after(number), len(rows), window.too_long))

    def _tell_dropped(self, dropped: int) -> None:
        # Ranks that share batches drop the same rows: one of them says so.
        if dropped and (self.options.rank == 0 or self.options.ranks(self.spec.mode) == 1):
            _log.warning(
                "%s: %d rows were dropped, because they could not fill a batch of least_rows %d",
                ", ".join(self.topics),
                dropped,
                self.spec.least_rows,
            )

    def _tell_left_out(self, too_long: int) -> None:
        if too_long:
            _log.warning(
                "%s: %d rows of more than %d tokens were left out: raise max_tokens to take them",
                ", ".join(self.topics),
                too_long,
                self.max_tokens,
            )


def _with(passes: tuple[Passes, ...], made: Passes) -> tuple[Passes, ...]:
    """Return the passes with another one, successive whole ones as one stretch."""
    if passes and made.batches is None and passes[-1].batches is None and passes[-1].last + 1 == made.first:
        return (*passes[:-1], replace(passes[-1], last=made.last))
    return (*passes, made)


def _held_bytes(batch: Batch) -> int:
    """Return what a batch's tensors take in memory."""
    values = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
