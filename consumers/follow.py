"""Follow a topic: the offsets of the next pass, as soon as enough records arrived or the first waited long enough.

Each pass leaves out the rows that are retracted when it begins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from broker.clients import Connection
from consumers.sequence.cursor import Cursor
from consumers.sequence.retracted import bounds_now
from consumers.sequence.sources import later
from consumers.sequence.spec import FeedSpec

# How often the broker is asked for new offsets.
_LOOK_INTERVAL_S = 0.2
# This many new offsets begin a pass at once; a clean record has up to 2,048 rows.
_PROMPT_OFFSETS = 64


def next_pass(connection: Connection, spec: FeedSpec, cursor: Cursor, linger_s: float) -> Iterator[Cursor | None]:
    """Yield None until records have arrived for a pass after that of `cursor`, and then its cursor.

    Args:
        connection: the broker to ask.
        spec: of a feed in `follow` mode; sources that repeat keep their offsets.
        cursor: with the offsets of the pass that has ended.
        linger_s: how many seconds a few rows may wait for more rows.

    Raises:
        BrokerError: a topic is gone.
        FeedError: a topic was deleted and created again.
    """
    closes_at: float | None = None
    bounds = cursor.bounds or ()
    while True:
        arrived = tuple(
            bound if source.repeat else later(connection, bound, source)
            for bound, source in zip(bounds, spec.sources, strict=True)
        )
        offsets = sum(
            extent.end - extent.begin
            for bound, source in zip(arrived, spec.sources, strict=True)
            for extent in bound.values()
            if not source.repeat
        )
        if offsets:
            closes_at = closes_at or time.monotonic() + linger_s
            if offsets >= _PROMPT_OFFSETS or time.monotonic() >= closes_at:
                yield Cursor(epoch=cursor.epoch + 1, bounds=arrived, retractions=bounds_now(connection, spec))
        time.sleep(_LOOK_INTERVAL_S)
        yield None
