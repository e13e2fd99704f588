"""Where a feed's rows come from: clean topics of one family, with weights, and the offsets that are fixed for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from broker.clients import Connection
from broker.topics import Extent, identified_extents, topic_id, topic_name
from consumers.reading import gone
from consumers.sequence.block_sizes import block_sizes
from consumers.sequence.blocks import remaining
from consumers.sequence.cursor import Bounds, Cursor
from consumers.sequence.spec import FeedSpec, PinnedSource
from schema.errors import FeedError, UsageError
from schema.record import CLEAN

# A question to the broker takes some milliseconds, and a window of rows some hundreds.
_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One clean topic in a feed.

    Attributes:
        namespace: of the topic; None takes that of the settings.
        weight: its part in the mix, against the other sources' weights.
        repeat: begin anew when exhausted; a pass ends with the first source that does not.
        start: the first offset to read per partition; partitions not named start where the topic does.
        stop: the offset to end before, per partition; partitions not named end where the topic does.
    """

    namespace: str | None = None
    weight: float = 1.0
    repeat: bool = False
    start: Mapping[int, int] | None = None
    stop: Mapping[int, int] | None = None


def check_sources(sources: tuple[Source, ...], mode: str, shuffled: bool) -> None:
    """Raise UsageError where the sources cannot be mixed."""
    lasting = [source for source in sources if not source.repeat]
    if not sources or len(sources) > 255:
        raise UsageError("a feed has 1 to 255 sources")
    if any(not 0 < source.weight < float("inf") for source in sources):
        raise UsageError("a source's weight is a number above 0: leave a source out to give it none")
    if not lasting:
        raise UsageError("every source repeats, so no pass would end: give one of them repeat=False")
    if len(lasting) < len(sources) and not shuffled:
        raise UsageError("a source that repeats needs a shuffle_seed, or every pass would take its first rows")
    if mode == "follow" and len(lasting) > 1:
        raise UsageError("follow mixes one live source with repeating ones: set repeat=True on the others")
    if mode == "follow" and any(source.stop for source in lasting):
        raise UsageError("a feed that follows has no stop: use a snapshot, or leave the stop out")


def pin(connection: Connection, family: str, source: Source, block_rows: int | None = None) -> PinnedSource:
    """Return the source with its offsets fixed as the topic is now, and its blocks measured to hold `block_rows` rows.

    Raises:
        BrokerError: there is no such topic.
        FeedError: `start` or `stop` names offsets or partitions that the topic does not hold.
    """
    settings = connection.settings
    if source.namespace is not None:
        settings = settings.model_copy(update={"namespace": source.namespace})
    topic = topic_name(settings, family, CLEAN)
    identity, held = identified_extents(connection, topic)
    for side, named in (("start", source.start or {}), ("stop", source.stop or {})):
        for partition, offset in named.items():
            if partition not in held:
                raise FeedError(
                    f"{topic} has {len(held)} partitions, and the {side} names partition {partition}: "
                    f"{side} at offsets of this topic"
                )
            if not held[partition].begin <= offset <= held[partition].end:
                raise FeedError(gone(topic, partition, offset, held[partition]))
    bounds = {
        partition: Extent(
            (source.start or {}).get(partition, extent.begin), (source.stop or {}).get(partition, extent.end)
        )
        for partition, extent in held.items()
    }
    return PinnedSource(
        topic=topic,
        topic_id=identity,
        bounds=bounds,
        weight=source.weight,
        repeat=source.repeat,
        blocks={} if block_rows is None else block_sizes(connection, topic, bounds, block_rows),
    )


def require_held(connection: Connection, spec: FeedSpec, cursor: Cursor) -> None:
    """Check that what a state has yet to read of this pass is still there.

    Raises:
        BrokerError: a topic is gone.
        FeedError: a topic was made anew, has fewer partitions, or retention passed an offset; both are named.
    """
    for number, source in enumerate(spec.sources):
        now, held = identified_extents(connection, source.topic)
        missing = sorted(set(source.bounds) - set(held))
        if missing:
            raise FeedError(
                f"the state was saved with {len(source.bounds)} partitions of {source.topic}, and it now has "
                f"{len(held)}: the topic was made anew, so begin without the state"
            )
        if now != source.topic_id:
            raise FeedError(
                f"the state was saved with {source.topic} of id {source.topic_id}, and it now has {now}: "
                "the topic was made anew, so begin without the state"
            )
        for partition, needed in sorted(remaining(spec, number, cursor).items()):
            for offset in (needed.begin, needed.end):
                if not held[partition].begin <= offset <= held[partition].end:
                    raise FeedError(gone(source.topic, partition, offset, held[partition]))


def later(connection: Connection, bounds: Bounds, source: PinnedSource) -> Bounds:
    """Return the offsets that have come since `bounds`, with partitions that were added; some may be empty.

    Raises:
        BrokerError: the topic is gone.
        FeedError: the topic was deleted and created again.
    """
    now, held = identified_extents(connection, source.topic)
    _require_id(source, now)
    return {
        partition: Extent(bounds[partition].end if partition in bounds else extent.begin, extent.end)
        for partition, extent in held.items()
    }


class TopicCheck:
    """Checks while a pass goes on that its topics are still those that the feed began with.

    Args:
        connection: the broker to ask.
        spec: the feed's.
    """

    def __init__(self, connection: Connection, spec: FeedSpec) -> None:
        self._connection, self._sources = connection, spec.sources
        self._checked_at = -_CHECK_INTERVAL_S

    def check(self, *, now: bool = False) -> None:
        """Compare the topics' ids with the spec's, unless that was done within the last second; `now` does it always.

        Raises:
            BrokerError: a topic is gone.
            FeedError: a topic was deleted and created again.
        """
        if not now and time.monotonic() - self._checked_at < _CHECK_INTERVAL_S:
            return
        for source in {source.topic: source for source in self._sources}.values():
            _require_id(source, topic_id(self._connection, source.topic))
        self._checked_at = time.monotonic()


def _require_id(source: PinnedSource, now: str) -> None:
    if now != source.topic_id:
        raise FeedError(
            f"{source.topic} was deleted and created again while this feed read it (its id was {source.topic_id}, and "
            f"is now {now}): make a new feed, without an old state"
        )
