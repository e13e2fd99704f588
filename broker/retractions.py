"""Read the retractions of a family: `<namespace>.<family>.retractions`, up to a fixed end.

A `RetractionBound` says which retractions a reader knows. Two readers with one bound leave out the same rows. A topic
that does not exist yet, as in an older installation, has no retractions.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from broker.clients import Connection
from broker.committed import committed_records
from broker.topics import Extent, client_errors, identified_extents, topic_exists
from schema.decoding import decode_record, is_foreign
from schema.errors import FeedmillError
from schema.record import CLEAN, RETRACTIONS
from schema.retractions import COLUMNS, NO_IDS, VERSION, Ids, sorted_ids

log = logging.getLogger(__name__)

# Arrays of ids that are kept, because every pass of a feed needs the same ones.
_KEPT = 8
_kept: OrderedDict[tuple[str, RetractionBound], Ids] = OrderedDict()


@dataclass(frozen=True)
class RetractionBound:
    """The retractions that a reader knows: those below offset `end` of the topic with this id."""

    topic_id: str
    end: int


def retractions_beside(clean: str) -> str:
    """Return the name of the retractions topic beside a clean topic.

    >>> retractions_beside("feedmill.code.clean")
    'feedmill.code.retractions'
    """
    return f"{clean.removesuffix(CLEAN)}{RETRACTIONS}"


def retraction_bound(connection: Connection, topic: str) -> RetractionBound | None:
    """Return the bound of all retractions that are committed now; None if the topic does not exist.

    Raises:
        BrokerError: the broker does not answer.
    """
    if not topic_exists(connection, topic):
        return None
    topic_id, held = identified_extents(connection, topic)
    return RetractionBound(topic_id, held[0].end)


def retracted_ids(connection: Connection, topic: str, bound: RetractionBound | None, error: type[FeedmillError]) -> Ids:
    """Return the different ids that are retracted below `bound`, ascending (N,); without a bound, none.

    Raises:
        BrokerError, KafkaError: the topic cannot be read.
        FeedmillError: of the class `error`: as `retraction_entries`.
    """
    if bound is None or not bound.end:
        return NO_IDS
    ids = _kept.get((topic, bound))
    if ids is None:
        names = {"example_id": COLUMNS["example_id"]}
        ids = sorted_ids(retraction_entries(connection, topic, bound, error, columns=names))
        _kept[topic, bound] = ids
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    return ids


def retraction_entries(
    connection: Connection,
    topic: str,
    bound: RetractionBound,
    error: type[FeedmillError],
    *,
    begin: int = 0,
    columns: Mapping[str, pl.DataType] = COLUMNS,
    is_strict: bool = True,
) -> pl.DataFrame:
    """Return the entries of the offsets from `begin` to `bound`, in order; an entry may occur twice.

    A record that another program wrote is passed over, and a warning names it.

    Args:
        connection: the broker to read from.
        topic: the topic's full name.
        bound: where to end; nothing above it is read.
        error: class of the error if the topic is another one, was shortened, or holds an undecodable record.
        begin: the first offset.
        columns: the columns to read, of `schema.retractions.COLUMNS`.
        is_strict: whether a shortened topic and an undecodable record are errors; if not, a warning names them.

    Raises:
        BrokerError: the topic cannot be read.
        FeedmillError: of the class `error`.
    """
    topic_id, held = identified_extents(connection, topic)
    if topic_id != bound.topic_id or held[0].end < bound.end:
        raise error(f"{topic} was created again, so the retractions in it are lost: retract the rows again")
    if held[0].begin > 0:
        shortened = error(
            f"{topic} no longer holds the offsets before {held[0].begin}, so retractions are lost: remove all limits "
            "from its retention, and retract the rows again in a new topic"
        )
        if is_strict:
            raise shortened
        log.warning("%s", shortened)
    kind = (topic.split(".")[-2], RETRACTIONS, VERSION)
    frames = [pl.DataFrame(schema=dict(columns))]

    def add(record: Any) -> None:
        try:
            frames.append(decode_record(record, topic, kind, columns, error))
        except error as cause:
            if is_strict:
                raise
            log.warning("%s; it is passed over", cause)

    with client_errors(connection):
        for record in committed_records(connection, topic, {0: Extent(max(begin, held[0].begin), bound.end)}):
            if not is_foreign(record, topic, kind):
                add(record)
    return pl.concat(frames)
