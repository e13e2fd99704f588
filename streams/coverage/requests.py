"""Publish changed deficits to `<namespace>.<family>.requests`, for producers that fill the gaps.

The only publisher is the coverage service, in its folding thread. Cells are spread over the topic's partitions by their
number, so producers that share the partitions share the cells. A cell is published when its deficit changes; a filled
cell becomes a tombstone. After the cells, each partition gets an account: up to which raw offsets rows are counted. If
the account falls, because the ledger is folded again, it comes before the cells instead. Then the cells after it are
known to count fewer rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from kafka import KafkaProducer
from kafka.errors import KafkaError

from broker.clients import Connection
from broker.committed import committed_records
from broker.retractions import RetractionBound
from broker.topics import extents, partition_count, topic_name
from schema.errors import BrokerError, RecordError
from schema.family import Family, cell_label
from schema.record import REQUESTS
from schema.requests import ACCOUNTED, Account, Request, decode_account
from streams.coverage.report import cell_deficits
from streams.coverage.store import CoverageStore

log = logging.getLogger(__name__)

_FLUSH_S = 10.0
# New partitions are noticed within this time.
_PARTITIONS_CHECK_S = 5.0


@dataclass
class _PublishedPage:
    """One partition of the topic: its content as {key: value}, and the next offset to write."""

    held: dict[str, bytes]
    end: int


class RequestPublisher:
    """Publishes the deficits of `families` from the store; for one thread.

    If the broker does not answer, it publishes later, so the fold never stops.
    """

    def __init__(self, connection: Connection, store: CoverageStore, families: Mapping[str, Family]) -> None:
        self._store = store
        self._families = families
        self._connection = connection
        self._topics = {name: topic_name(connection.settings, name, REQUESTS) for name in families}
        self._pages: dict[str, list[_PublishedPage]] = {}
        # The positions in ledger and retractions at which each family was last published.
        self._published: dict[str, tuple[Mapping[int, int], RetractionBound | None]] = {}
        self._checked_at = 0.0
        self._producer = _producer(connection)
        self.behind = True
        self._is_alone = True

    def close(self) -> None:
        """Close the producer."""
        self._producer.close(timeout=_FLUSH_S)

    @property
    def due(self) -> bool:
        """Whether to publish even if nothing was folded: the last try failed, or partitions may have been added."""
        return self.behind or time.monotonic() - self._checked_at > _PARTITIONS_CHECK_S

    def publish(self) -> None:
        """Publish the changes since the last call."""
        try:
            if self.due:
                self._look_for_partitions()
            positions = self._store.positions()
            for name, family in self._families.items():
                ledger = {partition: end for (folded, partition), end in positions.items() if folded == name}
                at = ledger, self._store.retraction_position(name)
                if name not in self._pages or self._published.get(name) != at:
                    self._publish(family)
                    self._published[name] = at
        except (KafkaError, BrokerError) as error:
            log.warning("requests are not published for now: %s", error)
            # Some records may have arrived, so the topic is read again.
            self._pages.clear()
            self.behind = True
        else:
            self.behind = False

    def _look_for_partitions(self) -> None:
        self._checked_at = time.monotonic()
        for name, pages in list(self._pages.items()):
            if partition_count(self._connection, self._topics[name]) != len(pages):
                # A running producer notices new partitions of a topic only after some minutes.
                old, self._producer = self._producer, _producer(self._connection)
                old.close(timeout=_FLUSH_S)
                del self._pages[name]

    def _publish(self, family: Family) -> None:
        topic = self._topics[family.name]
        pages = self._pages.get(family.name)
        if pages is None:
            pages = self._pages[family.name] = _read(self._connection, topic)
        wanted = self._wanted(family, len(pages))
        if not _worth_publishing([page.held for page in pages], wanted):
            return
        sent = [
            (page, self._producer.send(topic, new.get(key), key=key.encode(), partition=partition))
            for partition, (page, new) in enumerate(zip(pages, wanted, strict=True))
            for key in _changes(page.held, new)
        ]
        self._producer.flush(timeout=_FLUSH_S)
        is_alone = True
        for page, future in sent:
            offset = future.get(timeout=_FLUSH_S).offset
            is_alone &= offset == page.end
            page.end = offset + 1
        for page, new in zip(pages, wanted, strict=True):
            page.held = new
        if not is_alone:
            # Another publisher has written records with unknown content, so the topic is read again.
            del self._pages[family.name]
            if self._is_alone:
                log.error(
                    "another process writes to %s: a namespace has one coverage service, so stop the other", topic
                )
            self._is_alone = False

    def _wanted(self, family: Family, partitions: int) -> list[dict[str, bytes]]:
        """Return the wanted content of each partition, as {key: value}."""
        counts = self._store.counts(family.name)
        account = Account(counts.accounted, counts.totals["rows_rerouted"] + counts.totals["rows_augmented"]).encode()
        wanted = [{ACCOUNTED: account} for _ in range(partitions)]
        numbers = _numbers(family)
        for cell, count, deficit in cell_deficits(family, counts):
            request = Request(cell, count, deficit)
            wanted[numbers[request.label] % partitions][request.label] = request.encode()
        return wanted


def _producer(connection: Connection) -> KafkaProducer:
    # By default `send` waits a minute for a broker that is down, and the fold waits with it.
    return connection.producer(max_block_ms=int(_FLUSH_S * 1000))


@lru_cache
def _numbers(family: Family) -> dict[str, int]:
    return {cell_label(cell): number for number, cell in enumerate(family.cells())}


def _worth_publishing(held: list[dict[str, bytes]], wanted: list[dict[str, bytes]]) -> bool:
    """Whether cells change, or open cells remain, so that a producer may wait for an account."""
    return any(old.keys() != new.keys() for old, new in zip(held, wanted, strict=True)) or any(
        len(new) > 1 for new in wanted
    )


def _changes(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[str]:
    """Return the keys whose values change, in the order in which to publish them."""
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and key != ACCOUNTED)
    if old.get(ACCOUNTED) == new[ACCOUNTED]:
        return changed
    try:
        falls = ACCOUNTED in old and not decode_account(new[ACCOUNTED]).reaches(decode_account(old[ACCOUNTED]))
    except RecordError:
        falls = True
    # The cells before an account count at least its rows. For a falling account that holds only if it comes first.
    return [ACCOUNTED, *changed] if falls else [*changed, ACCOUNTED]


def _read(connection: Connection, topic: str) -> list[_PublishedPage]:
    """Return the present content of the topic, by partition."""
    held = extents(connection, topic)
    pages = [_PublishedPage({}, held[partition].end) for partition in sorted(held)]
    for record in committed_records(connection, topic, held):
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            pages[record.partition].held.pop(key, None)
        else:
            pages[record.partition].held[key] = record.value
    return pages
