"""A resumed feed gives bit-identical batches, on any number of ranks and workers, any number of times."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

from broker.clients import Connection
from consumers.batches import Batch
from consumers.feed import Feed, FeedOptions
from consumers.loader import clean_start
from consumers.reduction.tensors import ReductionBatch
from tests import reductions
from tests.consumers.records import other_clean, write, write_around_abort
from tests.consumers.resumed_feeds import COUNT, OLD, WAYS, feed, on, saved

Content = tuple[tuple[str, ...], str]


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    return write_around_abort(connection, COUNT, 250)


@pytest.fixture
def old(connection: Connection) -> Iterator[pl.DataFrame]:
    with other_clean(connection, OLD, COUNT) as other_rows:
        yield other_rows


def content(batch: Batch) -> Content:
    """The batch's ids, and a digest of all its values except the cursor."""
    assert isinstance(batch, ReductionBatch)
    digest = hashlib.sha256()
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            digest.update(f"{field.name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
        elif field.name == "position":
            places = (value.source, value.partition, value.offset, value.row)
            digest.update(f"{value.topics} {[each.tolist() for each in places]}".encode())
        elif field.name != "cursor":
            digest.update(f"{field.name} {value}".encode())
    return tuple(batch.hex_ids), digest.hexdigest()


def two_passes(source: Feed) -> list[Content]:
    return [content(batch) for _ in range(2) for batch in source]


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_feed_gives_the_batches_of_an_uninterrupted_one_a_second_and_third_time_too(
    connection: Connection, rows: pl.DataFrame, old: pl.DataFrame, way: str
) -> None:
    def fresh(ahead: int = 4) -> Feed:
        return feed(connection, WAYS[way], prefetch=ahead)

    whole = two_passes(fresh())
    assert len(whole) > 10
    # Later rows are not in the snapshot, although feeds made from now on would see them.
    state, given, first = None, [], fresh()
    write(connection, reductions.valid(40, first=2 * COUNT))
    for stop in (3, len(whole) // 3, 2 * len(whole) // 3, len(whole)):
        one_feed = first if state is None else on(fresh(ahead=stop % 3), state)
        while len(given) < stop:
            batches = iter(one_feed)
            for batch in batches:
                given.append(content(batch))
                if len(given) == stop:
                    # The state is saved while later batches are already made ahead.
                    state = saved(one_feed)
                    break
            batches.close()  # type: ignore[attr-defined]
    assert given == whole


@hypothesis_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch_size=st.integers(1, 40),
    window_rows=st.integers(1, 200),
    seed=st.none() | st.integers(0, 2**64 - 1),
    bucket=st.booleans(),
    limit=st.integers(30, 300),
    data=st.data(),
)
def test_a_feed_resumes_from_any_batch(
    connection: Connection,
    rows: pl.DataFrame,
    batch_size: int,
    window_rows: int,
    seed: int | None,
    bucket: bool,
    limit: int,
    data: st.DataObject,
) -> None:
    way = {
        "batch_size": batch_size,
        "shuffle_seed": seed,
        "window_rows": window_rows,
        "bucket": bucket,
        "max_tokens": limit,
        "prefetch": 0,
    }
    whole = [content(batch) for batch in feed(connection, way)]
    stop = data.draw(st.integers(0, len(whole)))
    first = feed(connection, way)
    begun = [content(batch) for batch in itertools.islice(first, stop)]
    rest = [content(batch) for batch in on(feed(connection, way), saved(first))]
    # After its last batch a pass is still the current one, until the next batch is asked for.
    assert begun + rest == whole


# Budgets that hold four of the longest rows.
RANKED: dict[str, dict[str, Any]] = {"bucketed": {}, "tokens": {"batch_tokens": 1200}, "mixed": {}}


@pytest.mark.parametrize("way", RANKED)
def test_one_two_and_four_ranks_take_the_same_global_sequence(
    connection: Connection, rows: pl.DataFrame, old: pl.DataFrame, way: str
) -> None:
    def rank(number: int, world: int, state: dict[str, Any] | None = None) -> Feed:
        one_feed = feed(connection, {**WAYS[way], **RANKED[way]}, rank=number, world=world, least_rows=4)
        return one_feed if state is None else on(one_feed, state)

    alone = [batch.hex_ids for batch in rank(0, 1)]
    for world in (2, 4):
        ranks = [list(rank(number, world)) for number in range(world)]
        assert len({len(batches) for batches in ranks}) == 1
        assert [dealt_back(batches) for batches in zip(*ranks, strict=True)] == alone
        assert all(
            batch.global_rows == len(ids) for batches in ranks for batch, ids in zip(batches, alone, strict=True)
        )

    # A state of 4 ranks, the same on each rank, resumes with 2 ranks, and their state with 1.
    four = [rank(number, 4) for number in range(4)]
    begun = [dealt_back(next(steps) for steps in map(iter, four)) for _ in range(1)]
    states = [saved(one_feed) for one_feed in four]
    assert all(state == states[0] for state in states)
    two = [rank(number, 2, states[0]) for number in range(2)]
    iterators = [iter(one_feed) for one_feed in two]
    begun += [dealt_back(next(each) for each in iterators) for _ in range(len(alone) // 2)]
    rest = [batch.hex_ids for batch in rank(0, 1, saved(two[1]))]
    assert begun + rest == alone


def dealt_back(batches: Iterable[Batch]) -> list[str]:
    """The ids of a global batch, put together from its ranks' shares."""
    shares = [batch.hex_ids for batch in batches]
    return [number for dealt in itertools.zip_longest(*shares) for number in dealt if number is not None]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_with_workers_is_resumed_exactly(connection: Connection, rows: pl.DataFrame, workers: int) -> None:
    whole = two_passes(feed(connection, WAYS["bucketed"]))
    loader = feed(connection, WAYS["bucketed"]).loader(workers)
    begun = [content(batch) for batch in itertools.islice(loader, 7)]
    resumed = on(feed(connection, WAYS["bucketed"]), saved(loader)).loader(2 - workers)
    rest = [content(batch) for _ in range(2) for batch in resumed]
    assert begun + rest == whole


# torchdata uses a function of torch that is deprecated.
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_torchdatas_stateful_loader_saves_and_resumes_a_feed(
    connection: Connection, rows: pl.DataFrame, workers: int
) -> None:
    def loader() -> Any:
        one_feed = feed(connection, WAYS["bucketed"])
        start = clean_start(workers)
        return StatefulDataLoader(one_feed, batch_size=None, num_workers=workers, multiprocessing_context=start)

    whole = [content(batch) for batch in feed(connection, WAYS["bucketed"])]
    first = loader()
    steps = iter(first)
    given = [content(next(steps)) for _ in range(9)]
    state = first.state_dict()
    del steps
    for stop in (14, len(whole)):
        resumed = loader()
        resumed.load_state_dict(state)
        steps = iter(resumed)
        given += [content(next(steps)) for _ in range(stop - len(given))]
        state = resumed.state_dict()
    assert given == whole
    assert next(steps, None) is None


def test_a_pass_that_ends_moves_on_to_the_next_epoch(connection: Connection, rows: pl.DataFrame) -> None:
    one_feed = feed(connection, WAYS["shuffled"])
    first, second = ([content(batch) for batch in one_feed] for _ in range(2))
    assert one_feed.epoch == 2
    assert sorted(ids(first)) == sorted(ids(second))
    assert first != second
    one_feed.set_epoch(0)
    assert [content(batch) for batch in one_feed] == first


def ids(batches: list[Content]) -> list[str]:
    return [number for numbers, _ in batches for number in numbers]


def test_setting_the_epoch_of_a_loaded_state_keeps_its_place(connection: Connection, rows: pl.DataFrame) -> None:
    whole = two_passes(feed(connection, WAYS["shuffled"]))
    one_feed = feed(connection, WAYS["shuffled"])
    begun = [content(batch) for batch in itertools.islice(one_feed, 4)]
    resumed = on(feed(connection, WAYS["shuffled"]), saved(one_feed))
    for epoch in range(resumed.epoch, 2):
        resumed.set_epoch(epoch)
        begun += [content(batch) for batch in resumed]
    assert begun == whole


def test_a_feed_in_follow_mode_resumes_exactly(connection: Connection, rows: pl.DataFrame) -> None:
    def following() -> Feed:
        options = FeedOptions(window_rows=100, linger_s=0.1, bucket=True)
        return Feed(connection, "reduction", split=None, batch_size=16, mode="follow", shuffle_seed=2, options=options)

    whole = [content(batch) for batch in itertools.islice(following(), 30)]
    one_feed, given, state = following(), [], None
    for stop in (5, 17, 30):
        if state is not None:
            one_feed = on(following(), state)
        given += [content(batch) for batch in itertools.islice(one_feed, stop - len(given))]
        state = saved(one_feed)
    assert given == whole
    later = reductions.valid(20, first=COUNT)
    write(connection, later)
    resumed = on(following(), saved(one_feed))
    everything = pl.concat([rows["example_id"], later["example_id"]])
    seen = ids(whole)
    for batch in resumed:
        seen += batch.hex_ids
        if len(seen) >= len(everything):
            break
    assert sorted(seen) == sorted(f"{number:016x}" for number in everything)
