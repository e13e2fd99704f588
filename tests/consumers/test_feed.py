"""The batches of a feed: which rows they hold, in which order, cut how, and mixed how."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.admin import NewPartitions

from broker.clients import Connection
from broker.topics import extents
from consumers import reading
from consumers.batches import Batch
from consumers.feed import Curriculum, Feed, FeedOptions, Source
from consumers.reduction.tensors import ReductionBatch, decode_tokens
from schema.record import decode
from schema.reduction import FAMILY
from tests import reductions
from tests.consumers.records import other_clean, topic, write, write_around_abort

COUNT = 400


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    """Rows in clean, in two transactions, with an aborted one between."""
    return write_around_abort(connection, COUNT, 250)


OLD = "old"


@pytest.fixture
def old(connection: Connection) -> Iterator[pl.DataFrame]:
    """Other rows, in the clean topic of the namespace `old`."""
    with other_clean(connection, OLD, COUNT) as written:
        yield written


def ids(batches: Iterable[Batch]) -> list[int]:
    return [number % 2**64 for batch in batches for number in batch.example_id.tolist()]


def contents(batches: Iterable[Batch]) -> list[tuple[list[int], list[list[int]], list[int], list[int]]]:
    return [
        (
            batch.example_id.tolist(),
            batch.tokens.tolist(),  # type: ignore[attr-defined]
            batch.position.partition.tolist(),
            batch.position.offset.tolist(),
        )
        for batch in batches
    ]


@pytest.mark.parametrize("split", ["train", "val", "test", None])
@pytest.mark.parametrize("options", [FeedOptions(), FeedOptions(window_rows=48, bucket=True)])
def test_a_snapshot_pass_gives_every_row_of_the_split_once(
    connection: Connection, rows: pl.DataFrame, split: str | None, options: FeedOptions
) -> None:
    feed = Feed(connection, "reduction", split=split, batch_size=16, shuffle_seed=1, options=options)
    batches = list(feed)
    wanted = rows if split is None else rows.filter(pl.col("split") == split)
    assert wanted.height > 0
    assert sorted(ids(batches)) == sorted(wanted["example_id"].to_list())
    assert sorted(map(len, batches))[1:] == [16] * (len(batches) - 1)


def test_batches_hold_the_rows_content(connection: Connection, rows: pl.DataFrame) -> None:
    by_id = {row["example_id"]: row for row in rows.iter_rows(named=True)}
    for batch in Feed(connection, "reduction", batch_size=7, shuffle_seed=3):
        assert isinstance(batch, ReductionBatch)
        for number, tokens, span in zip(ids([batch]), batch.tokens, batch.span.tolist(), strict=True):
            row = by_id[number]
            assert decode_tokens(tokens) == row["term"]
            assert decode_tokens(tokens[span[0] : span[1]]) == row["term"][row["span_start"] : row["span_end"]]


def test_a_snapshot_ends_at_the_offsets_of_its_start(connection: Connection, rows: pl.DataFrame) -> None:
    feed = Feed(connection, "reduction", split=None)
    write(connection, reductions.valid(60, first=COUNT))
    assert sorted(ids(feed)) == sorted(rows["example_id"].to_list())
    assert len(ids(Feed(connection, "reduction", split=None))) == COUNT + 60


def test_the_same_seed_and_epoch_give_the_same_batches(connection: Connection, rows: pl.DataFrame) -> None:
    def feed(seed: int | None, epoch: int = 0) -> list[int]:
        shuffled = Feed(connection, "reduction", batch_size=16, shuffle_seed=seed)
        shuffled.set_epoch(epoch)
        return ids(shuffled)

    assert feed(1) == feed(1)
    orders = [feed(1), feed(2), feed(1, epoch=1), feed(None)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)


def test_without_a_seed_blocks_of_each_partition_come_in_turn(connection: Connection, rows: pl.DataFrame) -> None:
    at = [
        (partition, offset)
        for batch in Feed(connection, "reduction", split=None)
        for partition, offset in zip(batch.position.partition.tolist(), batch.position.offset.tolist(), strict=True)
    ]
    records = [key for key, _ in itertools.groupby(at)]
    turns = [partition for partition, _ in itertools.groupby(records, key=lambda record: record[0])]
    assert turns[:8] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert all(offset < 8 for _, offset in records[: records.index((1, 0))])
    for number in range(4):
        offsets = [offset for partition, offset in records if partition == number]
        assert offsets == sorted(set(offsets))


@pytest.mark.parametrize(("fetch_bytes", "ahead_bytes"), [(1, 0), (1, 10**9), (10**7, 0)])
def test_the_order_does_not_depend_on_how_records_arrive(
    connection: Connection,
    rows: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    fetch_bytes: int,
    ahead_bytes: int,
) -> None:
    expected = contents(Feed(connection, "reduction", batch_size=16, shuffle_seed=1))
    monkeypatch.setattr(reading, "_FETCH_BYTES", fetch_bytes)
    monkeypatch.setattr(reading, "_READ_AHEAD_BYTES", ahead_bytes)
    assert contents(Feed(connection, "reduction", batch_size=16, shuffle_seed=1)) == expected


def test_loader_workers_give_the_batches_of_one_process(connection: Connection, rows: pl.DataFrame) -> None:
    def feed() -> Feed:
        options = FeedOptions(window_rows=96, bucket=True)
        return Feed(connection, "reduction", batch_size=16, shuffle_seed=5, options=options)

    alone = contents(feed())
    assert contents(feed().loader()) == alone
    assert contents(feed().loader(workers=2)) == alone


def test_every_row_can_be_traced_to_its_record(connection: Connection, rows: pl.DataFrame) -> None:
    consumer = connection.consumer()
    read_ids = {}
    for partition, extent in extents(connection, topic(connection)).items():
        where = TopicPartition(topic(connection), partition)
        consumer.assign([where])
        consumer.seek(where, extent.begin)
        while consumer.position(where) < extent.end:
            for record in itertools.chain(*consumer.poll(timeout_ms=500).values()):
                read_ids[partition, record.offset] = decode(record.value, FAMILY.wire, 1000)["example_id"].to_list()
    consumer.close()
    for batch in Feed(connection, "reduction", batch_size=32, shuffle_seed=1):
        assert batch.position.topics == (topic(connection),)
        places = zip(batch.position.partition.tolist(), batch.position.offset.tolist(), strict=True)
        for number, place in zip(ids([batch]), places, strict=True):
            assert number in read_ids[place]


def test_rows_too_long_are_left_out_counted_and_logged(
    connection: Connection, rows: pl.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 40
    lengths = rows["term"].str.len_chars() + 2
    with caplog.at_level(logging.WARNING, "feedmill.feed"):
        batches = list(Feed(connection, "reduction", split=None, options=FeedOptions(max_tokens=limit)))
    assert sorted(ids(batches)) == sorted(rows.filter(lengths <= limit)["example_id"].to_list())
    assert batches[-1].too_long == (lengths > limit).sum() > 0
    assert f"{batches[-1].too_long} rows with more than {limit} tokens were left out" in caplog.text


def test_bucketing_saves_padding(connection: Connection, rows: pl.DataFrame) -> None:
    def padding(bucket: bool) -> float:
        options = FeedOptions(bucket=bucket)
        batches = list(Feed(connection, "reduction", split=None, batch_size=16, shuffle_seed=1, options=options))
        return 1 - sum(batch.real_tokens for batch in batches) / sum(b.attention_mask.numel() for b in batches)

    assert padding(True) < padding(False) / 3


def test_a_token_budget_holds_for_every_batch_and_wastes_little(connection: Connection, rows: pl.DataFrame) -> None:
    options = FeedOptions(batch_tokens=4000, max_tokens=1000, bucket=True)
    batches = list(Feed(connection, "reduction", split=None, shuffle_seed=1, options=options))
    assert sum(map(len, batches)) + batches[-1].too_long == COUNT
    assert all(batch.attention_mask.numel() <= 4000 for batch in batches)
    assert sum(batch.padding_share for batch in batches) / len(batches) < 0.1
    assert max(map(len, batches)) > 64


@pytest.mark.parametrize("where", [pl.col("size") > 40, "size > 40"])
def test_a_filter_keeps_the_rows_for_which_it_is_true(
    connection: Connection, rows: pl.DataFrame, where: pl.Expr | str
) -> None:
    feed = Feed(connection, "reduction", split="train", options=FeedOptions(where=where))
    wanted = rows.filter((pl.col("size") > 40) & (pl.col("split") == "train"))
    assert sorted(ids(feed)) == sorted(wanted["example_id"].to_list())


@pytest.mark.parametrize("cumulative", [False, True])
def test_a_curriculum_goes_from_low_to_high_in_every_pass(
    connection: Connection, rows: pl.DataFrame, cumulative: bool
) -> None:
    curriculum = Curriculum(column="size", edges=(10, 25), cumulative=cumulative)
    options = FeedOptions(curriculum=curriculum)
    feed = Feed(connection, "reduction", split=None, batch_size=16, shuffle_seed=1, options=options)
    phases = [rows.filter(pl.col("size") < edge) for edge in (10, 25, 10**6)]
    if not cumulative:
        phases = [phases[0], *(high.join(low, on="example_id", how="anti") for low, high in itertools.pairwise(phases))]
    for _ in range(2):
        seen = [(batch.cursor.phase, number % 2**64) for batch in feed for number in batch.example_id.tolist()]
        assert [phase for phase, _ in seen] == sorted(phase for phase, _ in seen)
        for number, wanted in enumerate(phases):
            assert wanted.height
            assert sorted(example_id for phase, example_id in seen if phase == number) == sorted(wanted["example_id"])


def test_a_mix_is_exact_in_every_window_and_ends_with_the_source_that_does_not_repeat(
    connection: Connection, rows: pl.DataFrame, old: pl.DataFrame
) -> None:
    sources = (Source(weight=0.8), Source(namespace=OLD, weight=0.2, repeat=True))
    options = FeedOptions(sources=sources, window_rows=60)
    feed = Feed(connection, "reduction", split=None, batch_size=10, shuffle_seed=1, options=options)
    windows: dict[int, list[int]] = {}
    batches = list(feed)
    for batch in batches:
        windows.setdefault(batch.cursor.window, []).extend(batch.position.source.tolist())
    *full, last = windows.values()
    assert len(full) == COUNT // 48
    assert all((len(window), sum(window)) == (60, 12) for window in full)
    assert (len(last), sum(last)) == (20, 4)
    # Every new row once; of the old rows a proportional number, each equally often to within one.
    counts = Counter(ids(batches))
    assert [counts[number] for number in rows["example_id"]] == [1] * COUNT
    assert sum(counts[number] for number in old["example_id"]) == COUNT / 4
    assert {counts[number] for number in old["example_id"]} <= {COUNT // 4 // old.height, COUNT // 4 // old.height + 1}
    assert {batch.position.of_row(0)[0] for batch in batches} == set(feed.topics)


def test_without_shuffling_a_mix_is_even_within_a_batch(
    connection: Connection, rows: pl.DataFrame, old: pl.DataFrame
) -> None:
    sources = (Source(weight=3), Source(namespace=OLD, weight=1))
    options = FeedOptions(sources=sources, window_rows=64)
    batches = list(Feed(connection, "reduction", split=None, batch_size=16, options=options))
    assert all(batch.position.source.sum() == 4 for batch in batches[:-1])
    # The old source ends the pass: all its rows were given, and three times as many new rows.
    assert len(ids(batches)) == 4 * old.height


def test_follow_gives_present_rows_and_later_ones(connection: Connection, rows: pl.DataFrame) -> None:
    feed = Feed(connection, "reduction", split=None, mode="follow", batch_size=64, options=FeedOptions(linger_s=0.2))
    batches = iter(feed)
    seen: list[int] = []
    while len(seen) < COUNT:
        seen += ids([next(batches)])
    later = reductions.valid(10, first=COUNT)
    write(connection, later)
    while len(seen) < COUNT + 10:
        seen += ids([next(batches)])
    assert sorted(seen) == sorted([*rows["example_id"], *later["example_id"]])
    batches.close()  # type: ignore[attr-defined]


def test_follow_reads_partitions_added_later(connection: Connection, rows: pl.DataFrame) -> None:
    feed = Feed(connection, "reduction", split=None, mode="follow", batch_size=64, options=FeedOptions(linger_s=0.2))
    batches = iter(feed)
    seen = ids([next(batches)])
    admin = connection.admin()
    admin.create_partitions({topic(connection): NewPartitions(total_count=6)})
    admin.wait_for_topics([topic(connection)])
    admin.close()
    later = reductions.valid(30, first=COUNT)
    write(connection, later)
    while len(seen) < COUNT + 30:
        seen += ids([next(batches)])
    assert sorted(seen) == sorted([*rows["example_id"], *later["example_id"]])
    batches.close()  # type: ignore[attr-defined]


def test_loader_workers_share_the_rows_they_follow(connection: Connection, rows: pl.DataFrame) -> None:
    feed = Feed(connection, "reduction", split=None, mode="follow", batch_size=16, options=FeedOptions(linger_s=0.2))
    batches = iter(feed.loader(workers=2))
    seen: list[int] = []
    # The two workers take turns, so both need rows all the time.
    more = reductions.valid(60, first=COUNT)
    write(connection, more)
    everything = {*rows["example_id"], *more["example_id"]}
    while len(seen) < COUNT:
        seen += ids([next(batches)])
    assert len(set(seen)) == len(seen)
    assert set(seen) <= everything
    del batches


def test_a_start_names_the_first_offset_of_partitions(connection: Connection, rows: pl.DataFrame) -> None:
    whole = Feed(connection, "reduction", split=None)
    feed = Feed(connection, "reduction", split=None, options=FeedOptions(sources=(Source(start={1: 3}),)))
    name = topic(connection)
    assert feed.offsets[name] == {**whole.offsets[name], 1: (3, whole.offsets[name][1][1])}
    positions = [batch.position for batch in feed]
    ones = torch.cat([position.offset[position.partition == 1] for position in positions])
    assert ones.min() == 3
    assert len(ids(feed)) == COUNT - 3 * 16


# Rows to a batch, options, and how many rows are dropped.
EIGHT_RANKS: dict[str, tuple[int | None, FeedOptions, int]] = {
    "a last batch of 5 rows": (79, FeedOptions(), 0),
    "a last window without a batch": (8, FeedOptions(where="size >= 7", window_rows=8), 6),
    "tokens": (None, FeedOptions(batch_tokens=800, max_tokens=100, window_rows=43, bucket=True), 0),
    "windows of few rows": (None, FeedOptions(batch_tokens=800, max_tokens=100, window_rows=1), 0),
    "windows of few bytes": (None, FeedOptions(batch_tokens=8000, max_tokens=100, window_bytes=1, least_rows=70), 64),
    "phases of 0, 2, 4, 10, 88 and 296 rows": (
        16,
        FeedOptions(curriculum=Curriculum(column="size", edges=(5, 7, 9, 12, 25)), bucket=True),
        6,
    ),
}


@pytest.mark.parametrize("way", EIGHT_RANKS)
def test_each_of_eight_ranks_has_rows_of_every_batch_and_dropped_rows_are_logged(
    connection: Connection, rows: pl.DataFrame, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    batch_size, options, dropped = EIGHT_RANKS[way]

    def ranks() -> list[Feed]:
        own = [dataclasses.replace(options, rank=rank, world=8) for rank in range(8)]
        return [
            Feed(connection, "reduction", split=None, batch_size=batch_size, shuffle_seed=1, options=each)
            for each in own
        ]

    feeds = ranks()
    with caplog.at_level(logging.WARNING, "feedmill.feed"):
        shares = [list(feed) for feed in feeds]
    steps = list(zip(*shares, strict=True))
    assert steps
    assert all(len(share) for step in steps for share in step)
    least = options.least_rows or 8
    assert all(sum(map(len, step)) == step[0].global_rows >= least for step in steps)
    given_ids = [number for share in shares for number in ids(share)]
    assert len(set(given_ids)) == len(given_ids)
    selected = rows if options.where is None else rows.filter(pl.col("size") >= 7)
    assert len(given_ids) + dropped == selected.height - shares[0][-1].too_long
    dropped_lines = [line for line in caplog.messages if "were dropped" in line]
    # Only rank 0 logs.
    assert len(dropped_lines) == (dropped > 0)
    assert all(
        f": {dropped} rows were dropped, because they could not fill a batch of least_rows {least}" in line
        for line in dropped_lines
    )

    # A resumed run counts rows dropped before the resume, and continues on fewer ranks.
    first = ranks()[0]
    begun = list(itertools.islice(first, len(steps) // 2))
    alone = Feed(
        connection,
        "reduction",
        split=None,
        batch_size=batch_size,
        shuffle_seed=1,
        options=dataclasses.replace(options, world=1),
    )
    alone.load_state_dict(first.state_dict())
    caplog.clear()
    with caplog.at_level(logging.WARNING, "feedmill.feed"):
        rest = [batch.hex_ids for batch in alone]
    assert len(begun) + len(rest) == len(steps)
    assert [ids_of[::8] for ids_of in rest] == [step[0].hex_ids for step in steps[len(begun) :]]
    assert [line for line in caplog.messages if "were dropped" in line] == dropped_lines


@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 70),
    window_rows=st.integers(1, 500),
    seed=st.none() | st.integers(0, 2**64 - 1),
    bucket=st.booleans(),
)
def test_no_choice_of_sizes_loses_or_doubles_a_row(
    connection: Connection, rows: pl.DataFrame, batch_size: int, window_rows: int, seed: int | None, bucket: bool
) -> None:
    options = FeedOptions(window_rows=window_rows, bucket=bucket)
    feed = Feed(connection, "reduction", split=None, batch_size=batch_size, shuffle_seed=seed, options=options)
    assert sorted(ids(feed)) == sorted(rows["example_id"].to_list())
