"""The feed: a family's clean topics as padded tensor batches, for a torch training loop.

A feed yields one global sequence of batches. A `FeedSpec` (sources with fixed offsets, filters, seed, sizes) alone
decides it; timing, workers and ranks have no effect (`consumers.sequence`). A `Cursor` of a few numbers is a place in
the sequence. So a state is small, and a resumed feed continues with the very next batch.

Rows that are retracted (`broker.retractions`) when a feed is made, or when a pass of a following feed begins, are left
out. If rows of a saved state were retracted since, `load_state_dict` refuses it, unless `leave_out_retracted` is set:
then the sequence stays as it was planned, and these rows are dropped from their batches.

In `snapshot` mode a pass reads the offsets that were fixed when the feed was made. In `follow` mode a pass reads the
records that arrived since the last pass began, and passes never end.

Each of R ranks takes every R-th row of every global batch. A batch holds at least `least_rows` rows, so that each rank
gets one. Each of W workers of `loader()` makes every W-th batch and reads the whole topic. In `follow` mode without the
option `together`, ranks do not agree on offsets: rank r takes the rows with `example_id mod R == r`. The workers of a
foreign loader share those rows in the same way.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from broker.clients import Connection, connect
from broker.kept_clients import kept_clients
from consumers.batch_maker import BatchMaker
from consumers.batches import Batch
from consumers.feed_options import FeedOptions, check_options
from consumers.loader import FeedLoader
from consumers.loader_workers import Failure, LoaderWorkers, end_with_trainer
from consumers.prefetch import Prefetched
from consumers.sequence.cursor import Cursor
from consumers.sequence.predicates import Predicate
from consumers.sequence.retracted import with_new_retractions
from consumers.sequence.sources import Source, pin, require_held
from consumers.sequence.spec import Curriculum, FeedSpec, FeedState, Passes, read_state, require_same
from consumers.tensor_form import TensorForm, form_of
from schema.errors import FeedError, FeedmillError, UsageError
from schema.family import Family
from schema.registry import family_named
from schema.settings import Settings

__all__ = ["Curriculum", "Feed", "FeedOptions", "Source"]

_log = logging.getLogger("feedmill.feed")

DEFAULT_BATCH_SIZE = 64
# Memory of all batches made ahead; one larger batch is allowed.
_PREFETCH_BYTES = 64 * 1024 * 1024


class Feed(IterableDataset[Batch]):
    """Batches of one split of a family's clean topics.

    Args:
        source: settings to connect with, or a connection.
        family: a family with a tensor form.
        split: "train", "val" or "test"; None takes all rows.
        batch_size: rows in a global batch; B is one rank's share of them. 64, unless `batch_tokens` is set. A packed
            row (`FeedOptions.pack_tokens`) counts as one.
        mode: "snapshot" ends at the topics' end offsets when the feed was made; "follow" never ends.
        shuffle_seed: shuffles blocks of records, and rows within windows; None keeps the topics' order.
        options: settings that are seldom changed.

    Raises:
        UnknownFamilyError, UsageError: the family, split, mode or an option is invalid.
        BrokerUnavailableError: no broker answers.
        BrokerError: there is no clean topic yet.
        FeedError: a source's start or stop is outside the topic's offsets. Iterating raises it if retention removes
            records before they are read, or if a record cannot be decoded.

    Example::

        feed = Feed(connection, "reduction", split="train", batch_size=32, shuffle_seed=0)
        batch = next(iter(feed))
        batch.tokens.shape == batch.attention_mask.shape  # True
        tuple(batch.span.shape)  # (32, 2)
        state = feed.state_dict()  # of JSON values; `load_state_dict` continues with the next batch
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
        declared = family_named(family)
        self._form = form_of(family, options.form)
        if batch_size is None and options.batch_tokens is None:
            batch_size = DEFAULT_BATCH_SIZE
        spec = FeedSpec(
            family=family,
            schema_version=declared.version,
            sources=(),
            mode=mode,
            split=split,
            batch_size=batch_size,
            batch_tokens=options.batch_tokens,
            max_tokens=_most_tokens(self._form, options),
            shuffle_seed=shuffle_seed,
            block_rows=options.block_rows,
            window_rows=options.window_rows,
            window_bytes=options.window_bytes,
            bucket=options.bucket,
            where=None if options.where is None else Predicate.of(options.where, declared.wire),
            curriculum=options.curriculum,
            least_rows=options.ranks(mode) if options.least_rows is None else options.least_rows,
            form=self._form.identity,
            weight_column=options.weight_column,
            pack_tokens=options.pack_tokens,
        )
        check_options(spec, options, self._form)
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
        self._loader_workers: LoaderWorkers | None = None

    @property
    def family(self) -> Family:
        """The family's declaration, looked up by name: loader workers copy a feed, and a declaration has no copy."""
        return family_named(self.spec.family)

    @property
    def epoch(self) -> int:
        """Number of the pass in progress, or of the next one."""
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
        """The most rows of a global batch; None if only tokens limit it."""
        return self.spec.batch_size

    @property
    def shuffle_seed(self) -> int | None:
        """The seed of the shuffle; None keeps the topics' order."""
        return self.spec.shuffle_seed

    @property
    def max_tokens(self) -> int:
        """Rows with more tokens than this are left out."""
        return self.spec.max_tokens

    @property
    def topics(self) -> tuple[str, ...]:
        """Full names of the topics read."""
        return self.spec.topics

    @property
    def offsets(self) -> dict[str, dict[int, tuple[int, int]]]:
        """{topic: {partition: (begin, end)}} of a pass, without the end; in `follow` mode, of the first pass."""
        return {
            source.topic: {partition: (bound.begin, bound.end) for partition, bound in source.bounds.items()}
            for source in self.spec.sources
        }

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass; the shuffle depends on it.

        After a pass the number goes up by itself. The number of the pass that a loaded state is in changes nothing.
        """
        if epoch != self._cursor.epoch:
            self._abandon()
            self._start_over(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the feed's state after the last batch taken from it or its `loader()`: JSON values, no rows.

        In `snapshot` mode every rank has the same state.
        """
        return self._state().to_json()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a saved state: the next batch is the one that the saved feed would have given next.

        The offsets of a snapshot are the saved ones, even if records have arrived since. The number of ranks may
        change, up to the state's `least_rows`. This feed takes over that value unless its options set another.

        Raises:
            FeedError: the state does not fit this feed, its batches hold too few rows for the ranks, the topic no
                longer holds its offsets, or rows within its offsets were retracted since and `leave_out_retracted` is
                not set; the line gives the values.
            BrokerError: a topic is gone.
        """
        state = read_state(state_dict)
        chosen = self.options.least_rows is not None
        require_same(state.spec, self.spec if chosen else replace(self.spec, least_rows=state.spec.least_rows))
        if state.spec.least_rows < (ranks := self.options.ranks(self.spec.mode)):
            raise FeedError(
                f"the state's batches hold at least {state.spec.least_rows} rows, too few for {ranks} ranks: resume "
                f"with at most {state.spec.least_rows}, or start a new run with least_rows {ranks}"
            )
        share = self._maker.share
        if self.spec.mode == "follow" and state.share != share:
            raise FeedError(
                f"the state was saved in follow mode by share {state.share[0]} of {state.share[1]}, but this is share "
                f"{share[0]} of {share[1]}: use as many ranks and workers as before"
            )
        worker = get_worker_info()
        if state.worker is not None and (worker is None or state.worker != (worker.id, worker.num_workers)):
            raise FeedError(
                f"the state is that of loader worker {state.worker[0]} of {state.worker[1]}: "
                f"load it in the same worker of a loader with {state.worker[1]} workers"
            )
        with kept_clients(self.connection) as kept:
            require_held(kept, state.spec, state.cursor)
            spec = with_new_retractions(kept, state.spec, state.cursor, self.options.leave_out_retracted)
        # The state may hold only a fingerprint of its filter. This feed's filter is the same and can run.
        # Its tokenizer may have been at another place.
        self.spec = dataclasses.replace(spec, where=self.spec.where, form=self.spec.form)
        self._cursor, self._passes = state.cursor, state.passes
        self._worker, self._resume = state.worker, True

    def manifest(self) -> dict[str, Any]:
        """Return the manifest from which `feedmill replay --manifest` writes the rows taken so far, in order.

        Raises:
            FeedError: the feed is in `follow` mode, so its order depends on when rows arrived.
        """
        if self.spec.mode == "follow":
            raise FeedError(
                "a feed in follow mode has no manifest, because its order depends on when rows arrived: "
                "replay its offsets with `feedmill replay --from --to`"
            )
        return self.state_dict()

    def loader(self, workers: int = 0) -> FeedLoader:
        """Return a DataLoader over this feed; its workers inherit no thread pool from this process."""
        if workers and self.options.together is not None:
            raise UsageError(
                f"with the option together, ranks make their batches themselves, but workers is {workers}: "
                "use loader(workers=0)"
            )
        return FeedLoader(self, workers)

    def __iter__(self) -> Iterator[Batch]:
        return self._taken(None)

    def taken_from_workers(self, start: Callable[[], Iterator[Batch]], shared: LoaderWorkers) -> Iterator[Batch]:
        """Yield the batches of one pass that a loader's workers make; `start` starts them, and they hold `shared`."""
        # The workers copy this feed as it is now, with its cursor and their shared pipes.
        self._loader_workers = shared
        try:
            batches = start()
        finally:
            self._loader_workers = None
            shared.close_pipes()
        try:
            yield from self._taken(batches)
        finally:
            shared.stop()

    def _taken(self, from_workers: Iterator[Any] | None) -> Iterator[Any]:
        """Yield the batches of one pass and move the cursor along; `from_workers` are those of a loader's workers."""
        if not self._resume:
            self._abandon()
            self._start_over(self._cursor.epoch)
        self._resume = False
        batches = self._prefetched() if from_workers is None else from_workers
        too_long = 0
        try:
            for batch in batches:
                if isinstance(batch, Failure):
                    if self._loader_workers is None:
                        raise batch.error
                    # A worker passes the failure on to its loader.
                    yield batch
                    return
                self._cursor, too_long = batch.cursor, batch.too_long
                yield batch
        finally:
            if isinstance(batches, Prefetched):
                batches.close()
        self._warn_too_long(too_long)
        self._passes = _with(self._passes, Passes(first=self._cursor.epoch, last=self._cursor.epoch))
        self._start_over(self._cursor.epoch + 1)

    def _state(self) -> FeedState:
        worker = get_worker_info()
        number = None if worker is None or self.spec.mode == "follow" else (worker.id, worker.num_workers)
        return FeedState(
            spec=self.spec,
            cursor=self._cursor,
            passes=self._passes,
            share=self._maker.share if self.spec.mode == "follow" else (0, 1),
            # A worker that has made no batch yet is where its feed is.
            worker=number if self._worker or self._cursor.batches else None,
        )

    def _start_over(self, epoch: int) -> None:
        bounds = None
        if self.spec.mode == "follow":
            bounds = tuple(source.bounds for source in self.spec.sources)
        self._cursor = Cursor(epoch=epoch, bounds=bounds)
        self._worker = None

    def _abandon(self) -> None:
        """Record the pass in progress as broken off, with the batches that were taken."""
        if self._cursor.batches:
            epoch = self._cursor.epoch
            self._passes = _with(self._passes, Passes(first=epoch, last=epoch, batches=self._cursor.batches))

    @property
    def _maker(self) -> BatchMaker:
        return BatchMaker(self.spec, self._form, self.options, self._loader_workers)

    def _prefetched(self) -> Iterator[Any]:
        # A loader's workers already work ahead of the training step.
        if get_worker_info() is not None:
            return self._worker_batches()
        batches = self._made()
        if self.options.prefetch:
            return Prefetched(batches, self.options.prefetch, _held_bytes, _PREFETCH_BYTES)
        return (batch for batch in batches if batch is not None)

    def _worker_batches(self) -> Iterator[Any]:
        """Yield the batches of `_made`; a `FeedLoader`'s worker yields an error as its last item, a `Failure`."""
        end_with_trainer()
        try:
            yield from (batch for batch in self._made() if batch is not None)
        except FeedmillError as error:
            if self._loader_workers is None:
                raise
            yield Failure(error)

    def _made(self) -> Iterator[Batch | None]:
        """Yield the batches of this rank and worker, and None while no records have arrived."""
        # The clients stay open while batches are made, so that waiting for records opens no new ones.
        with kept_clients(self.connection) as connection:
            yield from self._maker.batches(connection, self._cursor, after_own=self._worker is not None)

    def _warn_too_long(self, too_long: int) -> None:
        if too_long:
            _log.warning(
                "%s: %d rows with more than %d tokens were left out: raise max_tokens to include them",
                ", ".join(self.topics),
                too_long,
                self.max_tokens,
            )


def _most_tokens(form: TensorForm, options: FeedOptions) -> int:
    """Return the most tokens of a sequence: as set, or else the form's limit, or what a packed row can hold."""
    if options.max_tokens is not None:
        return options.max_tokens
    # Most sequences of a form that cuts rows have all its tokens, so shorter packed rows are refused, not filled.
    if options.pack_tokens is None or form.expand is not None:
        return form.max_tokens
    return min(form.max_tokens, options.pack_tokens)


def _with(passes: tuple[Passes, ...], added: Passes) -> tuple[Passes, ...]:
    """Return `passes` with `added` at the end; consecutive whole passes become one entry."""
    if passes and added.batches is None and passes[-1].batches is None and passes[-1].last + 1 == added.first:
        return (*passes[:-1], replace(passes[-1], last=added.last))
    return (*passes, added)


def _held_bytes(batch: Batch) -> int:
    """Return the memory of a batch's tensors in bytes."""
    values = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return sum(value.nbytes for value in values if isinstance(value, Tensor))
