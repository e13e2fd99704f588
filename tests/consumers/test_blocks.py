"""The order of blocks: every offset once, the same for the same seed, and mixed from all over the topic."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from broker.clients import Connection
from broker.topics import Extent, ensure_topics, extents
from consumers.feed import Feed, FeedOptions
from consumers.sequence.block_sizes import block_sizes
from consumers.sequence.blocks import order_of
from consumers.sequence.spec import BlockSizes
from schema.record import encode
from tests import reductions
from tests.consumers.records import envelope, send, topic, write

SIZES = st.lists(st.tuples(st.integers(0, 500), st.integers(1, 64)), max_size=4).map(
    lambda sizes: tuple(sorted(dict(sizes).items()))
)


@given(
    bounds=st.dictionaries(
        st.integers(0, 5), st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda e: Extent(e[0], sum(e)))
    ),
    sizes=st.dictionaries(st.integers(0, 5), SIZES),
    seeds=st.none() | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 9)),
    spread=st.integers(1, 200),
)
def test_blocks_cover_every_offset_once_in_an_order_that_only_the_seed_changes(
    bounds: dict[int, Extent], sizes: BlockSizes, seeds: tuple[int, int] | None, spread: int
) -> None:
    blocks = order_of(bounds, sizes, seeds, spread)
    covered = sorted((block.partition, offset) for block in blocks for offset in range(block.begin, block.end))
    assert covered == [
        (partition, offset)
        for partition, extent in sorted(bounds.items())
        for offset in range(extent.begin, extent.end)
    ]
    assert order_of(dict(reversed(bounds.items())), sizes, seeds, spread) == blocks


@given(count=st.integers(1, 2000), spread=st.integers(1, 200), seed=st.integers(0, 2**64 - 1))
def test_blocks_in_a_row_come_from_all_over_the_topic(count: int, spread: int, seed: int) -> None:
    blocks = order_of({0: Extent(0, count)}, 1, (seed,), spread)
    taken = min(spread, count)
    # The last row has too few blocks for every section.
    for first in range(0, count // taken * taken, taken):
        row = blocks[first : first + taken]
        assert sorted(block.begin * taken // count for block in row) == list(range(taken))


def test_another_seed_gives_another_order() -> None:
    orders = [order_of({0: Extent(0, 100), 1: Extent(0, 100)}, 4, (seed,), 5) for seed in range(3)]
    assert len({tuple(order) for order in orders}) == 3


def test_a_block_size_holds_from_its_first_offset_on() -> None:
    blocks = order_of({0: Extent(5, 30)}, {0: ((5, 4), (16, 8))})
    assert [(block.begin, block.end) for block in blocks] == [(5, 9), (9, 13), (13, 16), (16, 24), (24, 30)]
    # Offsets after the measurement, and a partition that was not measured.
    assert order_of({0: Extent(40, 50), 1: Extent(0, 9)}, {0: ((5, 4), (16, 8))})[0].end == 48


def put(connection: Connection, frames: Iterable[tuple[int, pl.DataFrame]]) -> str:
    """Write each (partition, rows) as a record, and return the topic."""
    ensure_topics(connection, ["reduction"])
    producer = connection.producer()
    for partition, frame in frames:
        producer.send(topic(connection), encode(frame), partition=partition, headers=envelope(frame))
    producer.flush()
    producer.close()
    return topic(connection)


def test_blocks_are_measured_in_rows_wherever_records_change(connection: Connection) -> None:
    rows = reductions.valid(60)
    name = put(connection, [*itertools.repeat((0, rows[:2]), 300), *itertools.repeat((0, rows), 300)])
    sizes = block_sizes(connection, name, extents(connection, name), block_rows=64)
    # Records of 2 rows and then of 60; the other partitions are empty.
    assert sizes == {0: ((0, 32), (400, 1))}


def test_a_record_with_a_false_row_count_changes_only_a_block_size(connection: Connection) -> None:
    frame = reductions.valid(4)
    write(connection, frame, rows_per_record=4)
    for count in (b"999999999", b"-1", b"many", b"9" * 5000):
        headers = [(key, count if key == "feedmill-rows" else value) for key, value in envelope(frame)]
        send(connection, b"no arrow stream", headers)
    measured = block_sizes(connection, topic(connection), extents(connection, topic(connection)), block_rows=64)
    assert all(1 <= size <= 2**31 for sizes in measured.values() for _, size in sizes)


RUNS, RUN_ROWS, BATCH = 100, 160, 256


def test_batches_of_a_topic_written_run_after_run_vary_like_those_of_a_uniform_shuffle(connection: Connection) -> None:
    """A window has 128 blocks, as with the default sizes. With 4 blocks the variance ratio was over 60."""
    rows = reductions.valid(RUN_ROWS)
    put(
        connection,
        (
            (partition, piece.with_columns(size=pl.lit(run * 37 % RUNS, pl.Int32())))
            for run in range(RUNS)
            for partition in range(4)
            for piece in rows[partition::4].iter_slices(16)
        ),
    )
    options = FeedOptions(block_rows=16, window_rows=128 * 16)
    feed = Feed(connection, "reduction", split=None, batch_size=BATCH, shuffle_seed=1, options=options)
    means = [float(batch.size.float().mean()) for _ in range(2) for batch in feed if len(batch) == BATCH]  # type: ignore[attr-defined]
    uniform = np.arange(RUNS).var() / BATCH
    assert len(means) == 2 * (RUNS * RUN_ROWS // BATCH)
    assert np.var(means) / uniform < 3
