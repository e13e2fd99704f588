"""Check that a topic is still the same topic, and still holds the offsets to read.

Retention removes a topic's first offsets. A topic that was deleted and created again has another id, and its offsets
count other records.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.clients import Connection
from broker.topics import Extent, identified_extents
from schema.errors import FeedmillError


def require_unchanged(
    connection: Connection, topic: str, topic_id: str, wanted: Mapping[int, Extent], error: type[FeedmillError]
) -> dict[int, Extent]:
    """Check that `topic` still has this id and holds the offsets `wanted` (by partition); return its extents.

    Raises:
        BrokerError: the topic does not exist.
        FeedmillError: of the class `error`: the topic was created again, or no longer holds an offset.
    """
    id_now, held = identified_extents(connection, topic)
    if id_now != topic_id or set(wanted) - set(held):
        raise error(f"{topic} was created again since the run read it: its rows are gone")
    require_offsets(topic, wanted, held, error)
    return held


def require_offsets(
    topic: str, wanted: Mapping[int, Extent], held: Mapping[int, Extent], error: type[FeedmillError]
) -> None:
    """Check that the extents `held` of a topic contain the ranges `wanted`, both by partition.

    Raises:
        FeedmillError: of the class `error`: an offset is missing; the line names it and what the topic holds.
    """
    for partition, extent in sorted(wanted.items()):
        for offset in (extent.begin, extent.end):
            if not held[partition].can_start_at(offset):
                raise error(gone(topic, partition, offset, held[partition]))


def gone(topic: str, partition: int, wanted: int, held: Extent) -> str:
    """Return the error line for an offset `wanted` that the topic does not hold.

    Example:
        >>> gone("feedmill.code.clean", 0, 3, Extent(5, 9)).partition(": ret")[0]
        'feedmill.code.clean/0: offset 3 was asked for, but the topic holds 5 to 9'
    """
    if wanted < held.begin:
        cause = f"retention removed the offsets before {held.begin}, so start there or keep the topic longer"
    else:
        cause = "the topic was created again since, so start from its beginning"
    return (
        f"{topic}/{partition}: offset {wanted} was asked for, but the topic holds {held.begin} to {held.end}: {cause}"
    )
