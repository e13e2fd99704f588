"""Coverage's deficits -> `<namespace>.<family>.requests`, as they change.

One publisher at a time: the coverage service, in the thread that folds. Cells are spread over the topic's partitions by
their number, so that producers who share the partitions share the cells. A cell is published when its deficit changes,
a filled one as a tombstone; after the cells, each partition is told how far raw is accounted for, in that order.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

from kafka import TopicPartition
from kafka.errors import KafkaError

from broker.clients import Connection
from broker.topics import extents, partition_count, topic_name
from schema.errors import BrokerError
from schema.family import Family, cell_label
from schema.record import REQUESTS
from schema.requests import ACCOUNTED, Request, encode_accounted
from streams.coverage.report import cell_deficits
from streams.coverage.store import CoverageStore

log = logging.getLogger(__name__)

_POLL_MS = 500
_FLUSH_S = 10.0
_READ_S = 30.0

# What a partition of the topic holds: {key: value}.
_Held = dict[str, bytes]


class RequestPublisher:
    """Publishes the deficits of `families` as the store knows them; for one thread.

    What it cannot publish now, it publishes later: a broker that does not answer never stops the fold.
    """

    def __init__(self, connection: Connection, store: CoverageStore, families: Mapping[str, Family]) -> None:
        self._store = store
        self._families = families
        self._connection = connection
        self._topics = {name: topic_name(connection.settings, name, REQUESTS) for name in families}
        self._held: dict[str, list[_Held]] = {}
        self._producer = connection.producer()
        self.behind = True

    def close(self) -> None:
        """Close the producer."""
        self._producer.close(timeout=_FLUSH_S)

    def publish(self) -> None:
        """Publish what has changed since the last time."""
        try:
            for family in self._families.values():
                self._publish(family)
        except (KafkaError, BrokerError) as error:
            log.warning("requests are not published for now: %s", error)
            # What of it arrived is not known: the topic is read again.
            self._held.clear()
            self.behind = True
        else:
            self.behind = False

    def _publish(self, family: Family) -> None:
        topic = self._topics[family.name]
        held = self._held.get(family.name)
        if held is None:
            held = [{} for _ in range(partition_count(self._connection, topic))]
            for partition, key, value in _latest(self._connection, topic):
                held[partition][key] = value
        wanted = self._wanted(family, len(held))
        sent = [
            self._producer.send(topic, new.get(key), key=key.encode(), partition=partition)
            for partition, (old, new) in enumerate(zip(held, wanted, strict=True))
            # The account comes last: what stands before it is as of it.
            for key in sorted(old.keys() | new.keys(), key=lambda key: (key == ACCOUNTED, key))
            if old.get(key) != new.get(key)
        ]
        self._producer.flush(timeout=_FLUSH_S)
        for future in sent:
            future.get(timeout=_FLUSH_S)
        self._held[family.name] = wanted

    def _wanted(self, family: Family, partitions: int) -> list[_Held]:
        """Return what each partition should hold."""
        counts = self._store.counts(family.name)
        account = encode_accounted(counts.accounted)
        wanted: list[_Held] = [{ACCOUNTED: account} for _ in range(partitions)]
        places = {cell_label(cell): number % partitions for number, cell in enumerate(family.cells())}
        for cell, count, deficit in cell_deficits(family, counts):
            request = Request(cell, count, deficit)
            wanted[places[request.label]][request.label] = request.encode()
        return wanted


def _latest(connection: Connection, topic: str) -> Iterator[tuple[int, str, bytes]]:
    """Yield (partition, key, value) of what stands on the topic now, the latest of each key last; no tombstones."""
    found: dict[tuple[int, str], bytes] = {}
    ends = {
        TopicPartition(topic, partition): extent.end
        for partition, extent in extents(connection, topic).items()
        if extent.end > extent.begin
    }
    with closing(connection.consumer()) as consumer:
        if ends:
            consumer.assign(list(ends))
            consumer.seek_to_beginning(*ends)
        deadline = time.monotonic() + _READ_S
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise BrokerError(f"{topic} could not be read for {_READ_S:.0f} s: see `feedmill doctor`")
            for records in consumer.poll(timeout_ms=_POLL_MS).values():
                for record in records:
                    place = record.partition, (record.key or b"").decode("utf-8", "replace")
                    if record.value is None:
                        found.pop(place, None)
                    else:
                        found[place] = record.value
    for (partition, key), value in found.items():
        yield partition, key, value
