"""What a feed refuses: wrong arguments, offsets that are gone, records that it cannot read, topics created again."""

from __future__ import annotations

import time
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import delete_topics, extents
from consumers import reading
from consumers.feed import Curriculum, Feed, FeedOptions, Source
from schema.errors import BrokerError, BrokerUnavailableError, FeedError, UnknownFamilyError, UsageError
from schema.record import encode
from tests import reductions
from tests.consumers.records import envelope, forget_before, send, topic, write, write_around_abort

COUNT = 400


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    """Rows in clean, in two transactions, with an aborted one between."""
    return write_around_abort(connection, COUNT, 250)


def test_a_source_that_repeats_without_rows_is_refused(connection: Connection, rows: pl.DataFrame) -> None:
    stop = dict.fromkeys(range(4), 0)
    sources = (Source(), Source(repeat=True, stop=stop))
    feed = Feed(connection, "reduction", shuffle_seed=1, options=FeedOptions(sources=sources))
    with pytest.raises(FeedError, match="must repeat, but has no rows"):
        list(feed)


def test_a_start_that_retention_removed_is_refused_with_both_offsets(
    connection: Connection, rows: pl.DataFrame
) -> None:
    forget_before(connection, 2)
    with pytest.raises(FeedError, match=r"/0: offset 1 was asked for, but the topic holds 2 to \d+: retention"):
        Feed(connection, "reduction", options=FeedOptions(sources=(Source(start={0: 1}),)))


def test_retention_that_overtakes_a_pinned_feed_is_an_error_with_both_offsets(
    connection: Connection, rows: pl.DataFrame
) -> None:
    feed = Feed(connection, "reduction")
    forget_before(connection, 2)
    with pytest.raises(FeedError, match=r"/0: offset 0 was asked for, but the topic holds 2 to \d+: retention"):
        list(feed)


def test_a_start_beyond_the_topic_is_refused(connection: Connection, rows: pl.DataFrame) -> None:
    with pytest.raises(FeedError, match=r"/3: offset 999 was asked for, but the topic holds 0 to \d+: the topic was"):
        Feed(connection, "reduction", options=FeedOptions(sources=(Source(start={3: 999}),)))
    with pytest.raises(FeedError, match="has 4 partitions, but the source's start names partition 4"):
        Feed(connection, "reduction", options=FeedOptions(sources=(Source(start={4: 0}),)))


def test_a_record_of_another_version_is_refused_with_its_place(connection: Connection, rows: pl.DataFrame) -> None:
    frame = reductions.valid(3, first=COUNT)
    send(connection, encode(frame), envelope(frame, version=2), partition=2)
    with pytest.raises(FeedError, match=r"clean/2 offset \d+ has type feedmill.reduction.clean.v2, but this build"):
        list(Feed(connection, "reduction"))


def test_a_damaged_record_is_refused_with_its_place(connection: Connection, rows: pl.DataFrame) -> None:
    frame = reductions.valid(3, first=COUNT)
    send(connection, encode(frame)[:-40], envelope(frame), partition=1)
    with pytest.raises(FeedError, match=r"clean/1 offset \d+ cannot be decoded \(garbage"):
        list(Feed(connection, "reduction"))


def test_a_missing_topic_is_an_error(connection: Connection) -> None:
    with pytest.raises(BrokerError, match=r"reduction.clean does not exist"):
        Feed(connection, "reduction")


def test_a_silent_broker_is_an_error(connection: Connection, rows: pl.DataFrame) -> None:
    name = topic(connection)
    with reading.TopicReader(connection, name, FeedError, silence_s=1.0) as reader:
        # An end offset that is never reached looks like a broker that no longer answers.
        end = extents(connection, name)[0].end + 1
        with pytest.raises(BrokerUnavailableError, match=r"clean/0: no answer for offset \d+ in 1 s"):
            list(reader.records([reading.OffsetBlock(0, 0, end)]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"split": "training"},
        {"mode": "tail"},
        {"batch_size": 0},
        {"options": FeedOptions(window_rows=0)},
        {"options": FeedOptions(max_tokens=0)},
        {"options": FeedOptions(batch_tokens=100)},
        {"options": FeedOptions(rank=2, world=2)},
        {"options": FeedOptions(prefetch=-1)},
        {"shuffle_seed": -1},
        {"shuffle_seed": 2**64},
        {"options": FeedOptions(where="sise > 3")},
        {"options": FeedOptions(curriculum=Curriculum(column="term", edges=(1,)))},
        {"options": FeedOptions(sources=())},
        {"options": FeedOptions(sources=(Source(weight=0),))},
        {"options": FeedOptions(sources=(Source(), Source(repeat=True)))},
        {"options": FeedOptions(sources=(Source(repeat=True),)), "shuffle_seed": 1},
        {"options": FeedOptions(sources=(Source(), Source())), "mode": "follow"},
        {"options": FeedOptions(curriculum=Curriculum(column="size", edges=(1,))), "mode": "follow"},
    ],
)
def test_wrong_arguments_are_refused_before_a_broker_is_asked(arguments: dict[str, object]) -> None:
    nowhere = Connection(settings=None, servers="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Feed(nowhere, "reduction", **arguments)  # type: ignore[arg-type]
    with pytest.raises(UnknownFamilyError):
        Feed(nowhere, "reductions")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            {"batch_size": 7, "options": FeedOptions(world=8)},
            "^batch_size 7 leaves some of 8 ranks without rows: raise",
        ),
        ({"options": FeedOptions(world=8, least_rows=7)}, "^least_rows 7 leaves some of 8 ranks without rows: raise"),
        ({"options": FeedOptions(least_rows=0)}, "^least_rows 0 leaves some of 1 ranks without rows: raise"),
        ({"batch_size": 7, "options": FeedOptions(least_rows=8)}, "^batch_size 7 is less than least_rows 8: raise"),
        (
            {"options": FeedOptions(batch_tokens=4096, world=8)},
            "^batch_tokens 4096 cannot hold 8 rows of max_tokens 2050: raise batch_tokens to 16400, or lower "
            "max_tokens to 512$",
        ),
    ],
)
def test_batches_that_would_leave_a_rank_without_rows_are_refused(arguments: dict[str, Any], line: str) -> None:
    nowhere = Connection(settings=None, servers="127.0.0.1:1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=line):
        Feed(nowhere, "reduction", **arguments)


def make_again(connection: Connection, rows: pl.DataFrame) -> None:
    delete_topics(connection, [topic(connection)])
    write(connection, rows)


def test_a_topic_created_again_is_an_error_at_the_next_pass(connection: Connection, rows: pl.DataFrame) -> None:
    feed = Feed(connection, "reduction", split=None)
    assert sum(map(len, feed)) == COUNT
    # As many records as before, so that every offset exists.
    make_again(connection, reductions.valid(COUNT, first=COUNT))
    with pytest.raises(FeedError, match=r"clean was deleted and created again .*\(its id was \S+ and is now \S+\)"):
        next(iter(feed))


def test_a_topic_created_again_during_a_pass_is_an_error_before_its_end(
    connection: Connection, rows: pl.DataFrame
) -> None:
    options = FeedOptions(window_rows=32, prefetch=0)
    feed = Feed(connection, "reduction", split=None, batch_size=16, shuffle_seed=1, options=options)
    batches = iter(feed)
    next(batches)
    make_again(connection, reductions.valid(COUNT, first=COUNT))
    time.sleep(1)
    with pytest.raises(FeedError, match=r"deleted and created again|was asked for"):
        list(batches)


def test_a_topic_created_again_is_an_error_while_following(connection: Connection, rows: pl.DataFrame) -> None:
    # Without prefetching, the feed does not look for the topic while it is gone.
    options = FeedOptions(linger_s=0.1, prefetch=0)
    feed = Feed(connection, "reduction", split=None, batch_size=50, mode="follow", options=options)
    batches = iter(feed)
    for _ in range(COUNT // 50):
        next(batches)
    make_again(connection, pl.concat([rows, reductions.valid(50, first=COUNT)]))
    with pytest.raises(FeedError, match="clean was deleted and created again"):
        next(batches)
