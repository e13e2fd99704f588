"""The retracted ids of a family, as a worker knows them: read before its first group, and then at most once a second.

A row that is judged before its worker has read a new retraction can still reach clean. That can only be a row that was
augmented from the retracted one, because the retracted row itself is in clean and its copies are duplicates (with
`dedup_window_rows`, those that the window remembers). Feeds and replays leave such a late row out, because its origin
is retracted. The next `feedmill forget` of the family gives it an entry of its own, and then coverage leaves it out.
"""

from __future__ import annotations

import logging
import time

import numpy as np

from broker.clients import Connection
from broker.retractions import RetractionBound, retraction_bound, retraction_entries
from broker.topics import topic_name
from schema.errors import BrokerError, RefineError
from schema.family import Family
from schema.record import RETRACTIONS
from schema.retractions import COLUMNS, NO_IDS, Ids, sorted_ids

log = logging.getLogger(__name__)

# Asking for the topic's end takes some milliseconds, and a group of raw records some hundred.
_REFRESH_S = 1.0


class RetractionWatch:
    """Follows the retractions of one family; for one thread at a time.

    Attributes:
        ids: the retracted ids that were read, ascending; any thread may read it.
    """

    def __init__(self, connection: Connection, family: Family) -> None:
        self._connection = connection
        self._topic = topic_name(connection.settings, family.name, RETRACTIONS)
        self._read: RetractionBound | None = None
        self._refreshed_at: float | None = None
        self.ids: Ids = NO_IDS

    def refresh(self) -> None:
        """Read the new retractions, unless the last reading was less than a second ago.

        If the broker does not answer, the ids that are known stay, and a warning gives the cause. A record that cannot
        be decoded is passed over with a warning, so that one record never stops a partition.

        Raises:
            BrokerError: the broker does not answer the first reading.
        """
        if self._refreshed_at is not None and time.monotonic() - self._refreshed_at < _REFRESH_S:
            return
        try:
            self._read_new()
        except (BrokerError, RefineError) as error:
            if self._refreshed_at is None:
                raise
            log.warning("new retractions are not read for now: %s", error)
        self._refreshed_at = time.monotonic()

    def _read_new(self) -> None:
        bound = retraction_bound(self._connection, self._topic)
        if bound is None or bound == self._read:
            return
        # A topic that was created again begins at 0; what was retracted before stays retracted for this worker.
        is_same = self._read is not None and self._read.topic_id == bound.topic_id
        begin = self._read.end if is_same and self._read is not None else 0
        entries = retraction_entries(
            self._connection,
            self._topic,
            bound,
            RefineError,
            begin=begin,
            columns={"example_id": COLUMNS["example_id"]},
            is_strict=False,
        )
        self.ids = np.union1d(self.ids, sorted_ids(entries))
        self._read = bound
