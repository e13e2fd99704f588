"""Fold the retractions topics into the coverage store.

A retracted row may be counted only after the ledger entry that counts it as clean. So one round has these steps:

1. `look`: take the end of each retractions topic, and after it the ends of the family's ledger.
2. The ledger is folded (`streams.coverage.fold`).
3. `fold`: once the ledger is folded up to the ends of step 1, fold the retractions up to theirs.

The entries and the new position are stored in one transaction. A record of another program, or one that cannot be
decoded, is passed over with a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from broker.clients import Connection
from broker.retractions import RetractionBound, retraction_bound, retraction_entries
from broker.topics import extents, topic_name
from schema.errors import CoverageError
from schema.record import LEDGER, RETRACTIONS
from streams.coverage.store import REBUILD_HINT, CoverageStore

# Offsets in one transaction: an entry takes some 200 bytes of memory, and a record has up to 2,048.
_OFFSETS_PER_FOLD = 64


@dataclass(frozen=True)
class _Waiting:
    """Retractions to fold up to `bound`, once each ledger partition is folded up to its end in `ledger`."""

    bound: RetractionBound
    ledger: Mapping[int, int]


class RetractionFold:
    """Folds the retractions of some families; for one thread."""

    def __init__(self, connection: Connection, store: CoverageStore) -> None:
        self._connection, self._store = connection, store
        self._waiting: dict[str, _Waiting] = {}

    def look(self, families: Collection[str]) -> None:
        """Look for new retractions of `families` (step 1); those of the round before that still wait are kept.

        Raises:
            BrokerError: the broker does not answer.
        """
        for family in set(families) - self._waiting.keys():
            bound = retraction_bound(self._connection, self._topic(family))
            if bound is not None and bound != self._store.retraction_position(family):
                ledger = extents(self._connection, topic_name(self._connection.settings, family, LEDGER))
                self._waiting[family] = _Waiting(bound, {number: extent.end for number, extent in ledger.items()})

    def fold(self, folded: Mapping[str, Mapping[int, int]]) -> tuple[int, dict[str, str]]:
        """Fold the retractions whose ledger entries are folded (step 3).

        Args:
            folded: {family: {ledger partition: next offset to fold}}.

        Returns:
            The number of families that were folded, and {family: why it cannot be folded}.

        Raises:
            BrokerError: the broker does not answer.
        """
        done, causes = 0, {}
        for family, waiting in list(self._waiting.items()):
            reached = folded.get(family, {})
            if any(reached.get(number, 0) < end for number, end in waiting.ledger.items()):
                continue
            del self._waiting[family]
            try:
                self._fold_one(family, waiting.bound)
                done += 1
            except CoverageError as error:
                causes[family] = str(error)
        return done, causes

    def _fold_one(self, family: str, bound: RetractionBound) -> None:
        topic = self._topic(family)
        before = self._store.retraction_position(family)
        if before is not None and before.topic_id != bound.topic_id:
            raise CoverageError(
                f"the retractions of {family} were folded from topic {topic} with id {before.topic_id}, which now has "
                f"id {bound.topic_id}: {REBUILD_HINT}"
            )
        while before != bound:
            begin = 0 if before is None else before.end
            step = RetractionBound(bound.topic_id, min(begin + _OFFSETS_PER_FOLD, bound.end))
            entries = retraction_entries(self._connection, topic, step, CoverageError, begin=begin, is_strict=False)
            self._store.fold_retractions(family, before, step, entries)
            before = step

    def _topic(self, family: str) -> str:
        return topic_name(self._connection.settings, family, RETRACTIONS)
