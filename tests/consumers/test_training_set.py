from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import delete_topics
from consumers.feed import Feed
from consumers.training.training_set import TrainingSet
from schema.errors import BrokerError, FeedError
from tests import reductions
from tests.consumers.records import forget_before, topic, write


def ids(frame: pl.DataFrame) -> list[int]:
    return sorted(frame["example_id"].to_list())


@pytest.fixture
def state(connection: Connection) -> dict[str, object]:
    """Of a run that read one batch of 200 rows, of the split `val` only."""
    write(connection, reductions.valid(200))
    feed = Feed(connection, "reduction", split="val", batch_size=4)
    next(iter(feed))
    return feed.state_dict()


def test_all_rows_in_the_offsets_count_whatever_the_run_took_of_them(
    connection: Connection, state: dict[str, object]
) -> None:
    write(connection, reductions.valid(50, first=200))
    told: list[int] = []
    training_set = TrainingSet(connection, state)
    found = training_set.ids(told.append)
    assert found.dtype == np.uint64
    assert found.tolist() == ids(reductions.valid(200))
    assert told == sorted(told)
    assert told[-1] == training_set.offsets > 0


def test_what_a_following_run_read_later_counts_too(connection: Connection) -> None:
    write(connection, reductions.valid(60))
    feed = Feed(connection, "reduction", split="train", batch_size=8, mode="follow", shuffle_seed=1)
    batches = iter(feed)
    seen = set()
    for _ in range(4):
        seen.update(number % 2**64 for number in next(batches).example_id.tolist())
    write(connection, reductions.valid(60, first=100))
    first = set(ids(reductions.valid(60)))
    while seen <= first:
        seen.update(number % 2**64 for number in next(batches).example_id.tolist())
    found = TrainingSet(connection, feed.state_dict()).ids().tolist()
    assert set(found) >= seen
    assert len(found) == len(set(found))


def test_offsets_that_retention_removed_are_told(connection: Connection, state: dict[str, object]) -> None:
    forget_before(connection, 1)
    with pytest.raises(FeedError, match="offset 0 was asked for, but the topic holds 1 to"):
        TrainingSet(connection, state)


def test_a_topic_that_is_gone_or_made_anew_is_told(connection: Connection, state: dict[str, object]) -> None:
    delete_topics(connection, [topic(connection)])
    with pytest.raises(BrokerError, match=topic(connection)):
        TrainingSet(connection, state)
    write(connection, reductions.valid(200))
    with pytest.raises(FeedError, match="was created again"):
        TrainingSet(connection, state)


def test_what_is_no_state_is_told(connection: Connection) -> None:
    with pytest.raises(FeedError):
        TrainingSet(connection, {"topic": "feedmill.reduction.clean"})
