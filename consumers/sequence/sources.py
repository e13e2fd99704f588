"""Where a feed's rows come from: clean topics of one family, with weights, and the offsets that are fixed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from broker.clients import Connection
from broker.topics import Extent, extents, topic_id, topic_name
from consumers.reading import gone
from consumers.sequence.blocks import remaining
from consumers.sequence.cursor import Bounds, Cursor
from consumers.sequence.spec import FeedSpec, PinnedSource
from schema.errors import FeedError, UsageError
from schema.record import CLEAN


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


def pin(connection: Connection, family: str, source: Source) -> PinnedSource:
    """Return the source with its offsets fixed as the topic is now.

    Raises:
        BrokerError: there is no such topic.
        FeedError: `start` or `stop` names offsets or partitions that the topic does not hold.
    """
    settings = connection.settings
    if source.namespace is not None:
        settings = settings.model_copy(update={"namespace": source.namespace})
    topic = topic_name(settings, family, CLEAN)
    held = extents(connection, topic)
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
        topic_id=topic_id(connection, topic),
        bounds=bounds,
        weight=source.weight,
        repeat=source.repeat,
    )


def require_held(connection: Connection, spec: FeedSpec, cursor: Cursor) -> None:
    """Check that what a state has yet to read of this pass is still there.

    Raises:
        BrokerError: a topic is gone.
        FeedError: a topic was made anew, has fewer partitions, or retention passed an offset; both are named.
    """
    for number, source in enumerate(spec.sources):
        held = extents(connection, source.topic)
        missing = sorted(set(source.bounds) - set(held))
        if missing:
            raise FeedError(
                f"the state was saved with {len(source.bounds)} partitions of {source.topic}, and it now has "
                f"{len(held)}: the topic was made anew, so begin without the state"
            )
        now = topic_id(connection, source.topic)
        if now != source.topic_id:
            raise FeedError(
                f"the state was saved with {source.topic} of id {source.topic_id}, and it now has {now}: "
                "the topic was made anew, so begin without the state"
            )
        for partition, needed in sorted(remaining(spec, number, cursor).items()):
            for offset in (needed.begin, needed.end):
                if not held[partition].begin <= offset <= held[partition].end:
                    raise FeedError(gone(source.topic, partition, offset, held[partition]))


def later(connection: Connection, bounds: Bounds, topic: str) -> Bounds:
    """Return the offsets that have come since `bounds`, with partitions that were added; some may be empty."""
    return {
        partition: Extent(bounds[partition].end if partition in bounds else extent.begin, extent.end)
        for partition, extent in extents(connection, topic).items()
    }
