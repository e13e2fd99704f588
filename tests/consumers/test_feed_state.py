"""A feed refuses a state that does not fit it, in one line with both values."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import delete_topics
from consumers.feed import Source
from schema.errors import FeedError
from tests.consumers.records import forget_before, topic, write, write_around_abort
from tests.consumers.resumed_feeds import COUNT, WAYS, feed, saved


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    return write_around_abort(connection, COUNT, 250)


def test_a_state_whose_batches_hold_fewer_rows_than_there_are_ranks_is_refused(
    connection: Connection, rows: pl.DataFrame
) -> None:
    state = saved(feed(connection, WAYS["shuffled"], rank=1, world=2))
    assert state["spec"]["least_rows"] == 2
    # States of builds without this limit.
    older = {**state, "spec": {name: value for name, value in state["spec"].items() if name != "least_rows"}}
    for saved_state, most in ((state, 2), (older, 1)):
        line = rf"^the state's batches hold at least {most} rows, too few for 4 ranks: resume with at most {most}, or"
        with pytest.raises(FeedError, match=line):
            feed(connection, WAYS["shuffled"], world=4).load_state_dict(saved_state)
        feed(connection, WAYS["shuffled"], world=most).load_state_dict(saved_state)
    with pytest.raises(FeedError, match="saved with least rows 2, but this feed has 4"):
        feed(connection, WAYS["shuffled"], least_rows=4).load_state_dict(state)
    state["spec"]["least_rows"] = 17
    with pytest.raises(FeedError, match="batch_size 16 is less than least_rows 17"):
        feed(connection, WAYS["shuffled"]).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"batch_size": 8}, "saved with batch size 16, but this feed has 8"),
        ({"shuffle_seed": 9}, "saved with shuffle seed 3, but this feed has 9"),
        ({"window_rows": 64}, "saved with window rows 100, but this feed has 64"),
        ({"bucket": True}, "saved with bucket false, but this feed has true"),
        ({"where": "size > 3"}, "saved with where null, but this feed has"),
        ({"sources": (Source(weight=2.0),)}, "saved with sources"),
    ],
)
def test_a_state_of_another_feed_is_refused_with_both_values(
    connection: Connection, rows: pl.DataFrame, change: dict[str, Any], line: str
) -> None:
    state = saved(feed(connection, WAYS["shuffled"]))
    with pytest.raises(FeedError, match=line):
        feed(connection, {**WAYS["shuffled"], **change}).load_state_dict(state)


def test_the_largest_seed_has_a_state_that_can_be_loaded(connection: Connection, rows: pl.DataFrame) -> None:
    way = {**WAYS["shuffled"], "shuffle_seed": 2**64 - 1}
    one_feed = feed(connection, way)
    batches = iter(one_feed)
    next(batches)
    resumed = feed(connection, way)
    resumed.load_state_dict(saved(one_feed))
    assert next(iter(resumed)).hex_ids == next(batches).hex_ids


def begun(connection: Connection) -> dict[str, Any]:
    one_feed = feed(connection, WAYS["plain"])
    list(itertools.islice(one_feed, 3))
    return saved(one_feed)


def test_a_state_whose_offsets_retention_removed_is_refused_with_both_offsets(
    connection: Connection, rows: pl.DataFrame
) -> None:
    state = begun(connection)
    forget_before(connection, 5)
    with pytest.raises(FeedError, match=r"/0: offset \d was asked for, but the topic holds 5 to \d+: retention"):
        feed(connection, WAYS["plain"]).load_state_dict(state)


def test_a_state_whose_topic_has_fewer_partitions_is_refused_with_both_numbers(
    connection: Connection, rows: pl.DataFrame
) -> None:
    state = begun(connection)
    state["spec"]["sources"][0]["bounds"]["7"] = {"begin": 0, "end": 3}
    with pytest.raises(FeedError, match=r"saved with 5 partitions of .*clean, which now has 4"):
        feed(connection, WAYS["plain"]).load_state_dict(state)


def test_a_state_of_a_topic_created_again_is_refused(connection: Connection, rows: pl.DataFrame) -> None:
    state = begun(connection)
    delete_topics(connection, [topic(connection)])
    write(connection, rows)
    with pytest.raises(FeedError, match="the topic was created again"):
        feed(connection, WAYS["plain"]).load_state_dict(state)


def test_a_state_of_another_schema_version_is_refused_with_both(connection: Connection, rows: pl.DataFrame) -> None:
    state = begun(connection)
    state["spec"]["schema_version"] = 2
    with pytest.raises(FeedError, match="saved with schema version 2, but this feed has 1"):
        feed(connection, WAYS["plain"]).load_state_dict(state)


def test_a_state_of_another_order_of_batches_is_refused_by_its_version(
    connection: Connection, rows: pl.DataFrame
) -> None:
    state = {**begun(connection), "version": 1}
    with pytest.raises(
        FeedError, match=r"^the feed's state has version 1, but this build reads version 2: resume with"
    ):
        feed(connection, WAYS["plain"]).load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: {**state, "version": 9},
        lambda state: {},
        lambda state: {**state, "cursor": {"epoch": "x"}},
        lambda state: {**state, "spec": None},
        lambda state: {"weights": object()},
    ],
)
def test_an_invalid_state_is_refused(
    connection: Connection, rows: pl.DataFrame, damage: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    one_feed = feed(connection, WAYS["plain"])
    with pytest.raises(FeedError):
        one_feed.load_state_dict(damage(saved(one_feed)))
