"""The sources of a feed's rows: clean topics of one family, with weights and fixed offsets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from broker.clients import Connection
from broker.held_offsets import gone, require_offsets
from broker.retractions import retraction_bound, retractions_beside
from broker.topics import Extent, identified_extents, topic_id, topic_name
from consumers.sequence.block_sizes import block_sizes
from consumers.sequence.blocks import remaining
from consumers.sequence.cursor import Bounds, Cursor
from consumers.sequence.spec import FeedSpec, PinnedSource
from schema.errors import FeedError, UsageError
from schema.record import CLEAN

# Asking the broker takes some milliseconds, and a window of rows takes hundreds.
_CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """One clean topic in a feed.

    Attributes:
        namespace: of the topic; None takes that of the settings.
        weight: its part in the mix, relative to the other sources' weights.
        repeat: start again when exhausted; a pass ends with the first source that does not repeat.
        start: the first offset to read, per partition; other partitions start at the topic's first offset.
        stop: the offset to end before, per partition; other partitions end at the topic's end.
    """

    namespace: str | None = None
    weight: float = 1.0
    repeat: bool = False
    start: Mapping[int, int] | None = None
    stop: Mapping[int, int] | None = None


def check_sources(sources: tuple[Source, ...], mode: str, shuffled: bool) -> None:
    """Raise UsageError if the sources cannot be mixed."""
    lasting = [source for source in sources if not source.repeat]
    if not sources or len(sources) > 255:
        raise UsageError(f"a feed has 1 to 255 sources, not {len(sources)}")
    if any(not 0 < source.weight < float("inf") for source in sources):
        weights = ", ".join(str(source.weight) for source in sources)
        raise UsageError(f"the sources' weights are {weights}: give finite numbers above 0, or leave a source out")
    if not lasting:
        raise UsageError("every source repeats, so no pass would end: give one of them repeat=False")
    if len(lasting) < len(sources) and not shuffled:
        raise UsageError("a source that repeats needs a shuffle_seed, or every pass would take its first rows")
    if mode == "follow" and len(lasting) > 1:
        raise UsageError("follow mode mixes one live source with repeating ones: set repeat=True on the others")
    if mode == "follow" and any(source.stop for source in lasting):
        raise UsageError("a feed in follow mode has no stop: use a snapshot, or leave the stop out")


def pin(connection: Connection, family: str, source: Source, block_rows: int | None = None) -> PinnedSource:
    """Return the source with its offsets fixed as they are now, and block sizes measured for `block_rows` rows.

    Raises:
        BrokerError: there is no such topic.
        FeedError: `start` or `stop` has offsets or partitions that the topic does not hold.
    """
    settings = connection.settings
    if source.namespace is not None:
        settings = settings.model_copy(update={"namespace": source.namespace})
    topic = topic_name(settings, family, CLEAN)
    identity, extents_now = identified_extents(connection, topic)
    for side, named in (("start", source.start or {}), ("stop", source.stop or {})):
        for partition, offset in named.items():
            if partition not in extents_now:
                raise FeedError(
                    f"{topic} has {len(extents_now)} partitions, but the source's {side} names partition {partition}: "
                    f"give a {side} with partitions of this topic"
                )
            if not extents_now[partition].can_start_at(offset):
                raise FeedError(gone(topic, partition, offset, extents_now[partition]))
    bounds = {
        partition: Extent(
            (source.start or {}).get(partition, extent.begin), (source.stop or {}).get(partition, extent.end)
        )
        for partition, extent in extents_now.items()
    }
    return PinnedSource(
        topic=topic,
        topic_id=identity,
        bounds=bounds,
        weight=source.weight,
        repeat=source.repeat,
        blocks={} if block_rows is None else block_sizes(connection, topic, bounds, block_rows),
        # Taken after the ends, so that it holds every retraction of these rows.
        retractions=retraction_bound(connection, retractions_beside(topic)),
    )


def require_held(connection: Connection, spec: FeedSpec, cursor: Cursor) -> None:
    """Check that the topics still hold the offsets of this pass that a state has not read yet.

    Raises:
        BrokerError: a topic is gone.
        FeedError: a topic was created again, has fewer partitions, or no longer holds an offset; the line gives both
            values.
    """
    for number, source in enumerate(spec.sources):
        id_now, extents_now = identified_extents(connection, source.topic)
        missing = sorted(set(source.bounds) - set(extents_now))
        if missing:
            raise FeedError(
                f"the state was saved with {len(source.bounds)} partitions of {source.topic}, which now has "
                f"{len(extents_now)}: the topic was created again, so start without the state"
            )
        if id_now != source.topic_id:
            raise FeedError(
                f"the state was saved with {source.topic} of id {source.topic_id}, which now has id {id_now}: "
                "the topic was created again, so start without the state"
            )
        require_offsets(source.topic, remaining(spec, number, cursor), extents_now, FeedError)


def later(connection: Connection, bounds: Bounds, source: PinnedSource) -> Bounds:
    """Return the offsets that arrived after `bounds`, also of added partitions; some ranges may be empty.

    Raises:
        BrokerError: the topic is gone.
        FeedError: the topic was deleted and created again.
    """
    id_now, extents_now = identified_extents(connection, source.topic)
    _require_id(source, id_now)
    return {
        partition: Extent(bounds[partition].end if partition in bounds else extent.begin, extent.end)
        for partition, extent in extents_now.items()
    }


class TopicCheck:
    """Checks during a pass that its topics were not deleted and created again.

    Args:
        connection: the broker to ask.
        spec: the feed's spec.
    """

    def __init__(self, connection: Connection, spec: FeedSpec) -> None:
        self._connection, self._sources = connection, spec.sources
        self._checked_at = -_CHECK_INTERVAL_S

    def check(self, *, now: bool = False) -> None:
        """Compare the topics' ids with the spec's, at most once a second; `now` compares them at once.

        Raises:
            BrokerError: a topic is gone.
            FeedError: a topic was deleted and created again.
        """
        if not now and time.monotonic() - self._checked_at < _CHECK_INTERVAL_S:
            return
        for source in {source.topic: source for source in self._sources}.values():
            _require_id(source, topic_id(self._connection, source.topic))
        self._checked_at = time.monotonic()


def _require_id(source: PinnedSource, id_now: str) -> None:
    if id_now != source.topic_id:
        raise FeedError(
            f"{source.topic} was deleted and created again while this feed read it (its id was {source.topic_id} and "
            f"is now {id_now}): make a new feed without an old state"
        )
