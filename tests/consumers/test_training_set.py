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
    """The state of a run that read the split `val` in a topic of 200 rows."""
    write(connection, reductions.valid(200))
    feed = Feed(connection, "reduction", split="val", batch_size=4)
    next(iter(feed))
    return feed.state_dict()


def test_all_rows_in_the_offsets_count_even_those_that_the_run_left_out(
    connection: Connection, state: dict[str, object]
) -> None:
    write(connection, reductions.valid(50, first=200))
    reported: list[int] = []
    training_set = TrainingSet(connection, state)
    example_ids = training_set.ids(reported.append)
    assert example_ids.dtype == np.uint64
    assert example_ids.tolist() == ids(reductions.valid(200))
    assert reported == sorted(reported)
    assert reported[-1] == training_set.offsets > 0


def test_rows_that_a_following_run_read_later_count_too(connection: Connection) -> None:
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
    example_ids = TrainingSet(connection, feed.state_dict()).ids().tolist()
    assert set(example_ids) >= seen
    assert len(example_ids) == len(set(example_ids))


def test_offsets_that_retention_removed_are_an_error(connection: Connection, state: dict[str, object]) -> None:
    forget_before(connection, 1)
    with pytest.raises(FeedError, match="offset 0 was asked for, but the topic holds 1 to"):
        TrainingSet(connection, state)


def test_a_topic_that_is_gone_or_created_again_is_an_error(connection: Connection, state: dict[str, object]) -> None:
    delete_topics(connection, [topic(connection)])
    with pytest.raises(BrokerError, match=topic(connection)):
        TrainingSet(connection, state)
    write(connection, reductions.valid(200))
    with pytest.raises(FeedError, match="was created again"):
        TrainingSet(connection, state)


def test_an_invalid_state_is_refused(connection: Connection) -> None:
    with pytest.raises(FeedError):
        TrainingSet(connection, {"topic": "feedmill.reduction.clean"})
