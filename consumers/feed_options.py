"""A feed's options, and the checks of them that need no broker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from consumers.form_options import FormOptions
from consumers.sequence.cursor import Cursor
from consumers.sequence.sources import Source, check_sources
from consumers.sequence.spec import SEEDS, Curriculum, FeedSpec, least_rows_fault, packing_fault
from consumers.tensor_form import TensorForm
from schema.errors import UsageError
from schema.family import SPLITS
from schema.registry import family_named


class Together(Protocol):
    """Makes ranks that follow a topic agree on its passes, e.g. `consumers.training.rank_passes.RankPasses`."""

    def agreed(self, own: Iterator[Cursor | None]) -> Iterator[Cursor | None]:
        """Yield None until the ranks agree on the next pass, and then its cursor; end when following must end."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeedOptions:
    """Settings of a feed that are seldom changed.

    Attributes:
        sources: the clean topics to read, by namespace, with their weights; by default the topic of the settings.
        where: keeps the rows for which it is true: a Polars expression over the family's columns, or an SQL condition.
        curriculum: orders an epoch by a column, in phases.
        batch_tokens: limit of B x T in a batch, padding included; `batch_size`, if given, is a second limit.
        bucket: batch rows of similar length together, which saves padding.
        max_tokens: rows with more tokens are left out and counted, in `Batch.too_long` and in the log; None takes the
            family's limit.
        pack_tokens: put several sequences into each row of this many tokens, T, so that a batch has little padding;
            see docs/feeds.md. `batch_size` and `least_rows` then count such rows, and `max_tokens` is at most T. None
            gives each sequence a row of its own.
        window_rows: rows in memory at once for shuffling, bucketing and mixing (a reduction row takes about 0.4 KiB).
        window_bytes: a window ends early if its rows take more than this; a row counts 1 byte per token and 64 more.
        block_rows: neighbouring rows of a topic that a shuffled feed reads together. A window takes
            window_rows / block_rows blocks from all over the topic: smaller blocks mix better and cost more seeks.
        rank: number of this process among `world`, from 0.
        world: processes that share every batch.
        least_rows: the least rows of a global batch, so that as many ranks can share it. Rows that cannot fill such a
            batch are dropped and counted in the log. None takes `world`, or the value of a loaded state. Set it to let
            a later resume use more ranks.
        leave_out_retracted: continue from a saved state although rows of it were retracted since. These rows are
            dropped from their batches, which then are smaller.
        prefetch: batches made ahead in a thread; 0 makes each batch on request.
        form: for families whose tensor form makes sequences with a tokenizer: which, and how they are cut.
        weight_column: a numeric column with the weight of each row, 0 to 100. A pass takes a sequence as often as its
            weight says: floor(weight) times, and once more with the probability of the rest, decided by a hash.
        linger_s: in `follow` mode, how many seconds rows may wait for more rows.
        together: in `follow` mode, makes ranks agree on the offsets of each pass: every rank then takes its share of
            each global batch, as in a snapshot. Without it each rank follows by itself and takes the rows of its ids.
    """

    sources: tuple[Source, ...] = (Source(),)
    where: pl.Expr | str | None = None
    curriculum: Curriculum | None = None
    batch_tokens: int | None = None
    bucket: bool = False
    max_tokens: int | None = None
    pack_tokens: int | None = None
    window_rows: int = 262_144
    window_bytes: int = 96 * 1024 * 1024
    block_rows: int = 2_048
    rank: int = 0
    world: int = 1
    least_rows: int | None = None
    form: FormOptions | None = None
    weight_column: str | None = None
    leave_out_retracted: bool = False
    prefetch: int = 4
    linger_s: float = 1.0
    together: Together | None = None

    def ranks(self, mode: str) -> int:
        """Return how many ranks share each batch of a feed in this mode: 1 if each rank follows by itself."""
        return self.world if mode == "snapshot" or self.together is not None else 1


def check_options(spec: FeedSpec, options: FeedOptions, form: TensorForm) -> None:
    """Raise UsageError if the options are invalid or contradict each other; `spec` may lack its sources."""
    if spec.split is not None and spec.split not in SPLITS:
        raise UsageError(f"unknown split {spec.split!r}: use one of {', '.join(SPLITS)}")
    if spec.mode not in ("snapshot", "follow"):
        raise UsageError(f"unknown mode {spec.mode!r}: use snapshot or follow")
    if spec.pack_tokens is not None and not form.packs:
        raise UsageError(
            f"rows of family {spec.family!r} cannot be packed, because its tensors hold one sequence a row: "
            f"leave pack_tokens {spec.pack_tokens} out, or use bucket=True against padding"
        )
    if (fault := packing_fault(spec)) is not None:
        raise UsageError(fault)
    if (
        (spec.batch_size or 1) < 1
        or spec.batch_size == 0
        or min(spec.window_rows, spec.window_bytes, spec.block_rows) < 1
        or spec.max_tokens < 1
    ):
        raise UsageError(
            f"batch_size {spec.batch_size}, window_rows {spec.window_rows}, window_bytes {spec.window_bytes}, "
            f"block_rows {spec.block_rows} and max_tokens {spec.max_tokens} must each be at least 1"
        )
    if spec.shuffle_seed is not None and not 0 <= spec.shuffle_seed < SEEDS:
        raise UsageError(f"shuffle_seed is {spec.shuffle_seed}: use 0 to {SEEDS - 1}")
    if spec.batch_tokens is not None and spec.batch_tokens < spec.max_tokens:
        raise UsageError(
            f"batch_tokens {spec.batch_tokens} is less than max_tokens {spec.max_tokens}, so a row may fit no batch: "
            "raise one or lower the other"
        )
    if not 0 <= options.rank < options.world:
        raise UsageError(f"rank {options.rank} is outside of world {options.world}: use 0 to {options.world - 1}")
    ranks = options.ranks(spec.mode)
    if spec.least_rows < ranks:
        raise UsageError(
            f"least_rows {spec.least_rows} leaves some of {ranks} ranks without rows: raise it to {ranks} or more"
        )
    if spec.batch_size is not None and spec.batch_size < ranks:
        raise UsageError(
            f"batch_size {spec.batch_size} leaves some of {ranks} ranks without rows: raise it to {ranks} or more"
        )
    if (fault := least_rows_fault(spec)) is not None:
        raise UsageError(fault)
    if options.prefetch < 0 or options.linger_s < 0:
        raise UsageError(f"prefetch {options.prefetch} and linger_s {options.linger_s} must not be negative")
    check_sources(options.sources, spec.mode, spec.shuffle_seed is not None)
    if spec.weight_column is not None:
        kind = family_named(spec.family).wire.get(spec.weight_column)
        if kind is None or not kind.is_numeric():
            raise UsageError(f"weight_column is {spec.weight_column!r}, which is not a numeric column: name another")
    if spec.curriculum is not None:
        kind = family_named(spec.family).wire.get(spec.curriculum.column)
        if kind is None or not kind.is_numeric():
            raise UsageError(f"the curriculum's column {spec.curriculum.column!r} is not numeric: name another")
        if spec.mode == "follow":
            raise UsageError('a curriculum orders a whole pass, but follow mode has none: use mode "snapshot"')
