"""What producers that follow know: the open requests of a family, and which of them are theirs to fill.

`RequestBoard` reads the whole requests topic, as often as it is asked. `Shares` is membership of the group of producers
that follow the family: each partition of the topic, and with it each cell, belongs to one of them at a time, and those
of a killed one go to the others once its session has timed out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from kafka import ConsumerRebalanceListener, TopicPartition

from broker.clients import Connection
from broker.topics import partition_count, topic_name
from schema.errors import RecordError
from schema.family import Family
from schema.record import REQUESTS
from schema.requests import ACCOUNTED, Request, decode_accounted, decode_request

log = logging.getLogger(__name__)

_JOIN_MS = 100


@dataclass
class _Page:
    """One partition of the topic, as read so far."""

    open: dict[str, Request] = field(default_factory=dict)
    accounted: dict[int, int] | None = None


class RequestBoard:
    """The requests of a family; a context."""

    def __init__(self, connection: Connection, family: Family) -> None:
        self._family = family
        self._topic = topic_name(connection.settings, family.name, REQUESTS)
        self._pages = [_Page() for _ in range(partition_count(connection, self._topic))]
        self._consumer = connection.consumer(auto_offset_reset="earliest")
        partitions = [TopicPartition(self._topic, partition) for partition in range(len(self._pages))]
        self._consumer.assign(partitions)
        self._consumer.seek_to_beginning(*partitions)

    def __enter__(self) -> RequestBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self, wait_s: float) -> bool:
        """Take in what is new, waiting up to `wait_s` for a first record; return whether there was any."""
        polled = self._consumer.poll(timeout_ms=int(wait_s * 1000))
        for partition, records in polled.items():
            for record in records:
                self._take(self._pages[partition.partition], record.key, record.value)
        return bool(polled)

    def _take(self, page: _Page, key: bytes | None, value: bytes | None) -> None:
        label = (key or b"").decode("utf-8", "replace")
        try:
            if label == ACCOUNTED:
                page.accounted = None if value is None else decode_accounted(value)
            elif value is None:
                page.open.pop(label, None)
            else:
                page.open[label] = decode_request(value, self._family)
        except RecordError as error:
            # Whoever wrote it, it asks for nothing that can be made.
            log.warning("%s: %s", self._topic, error)

    @property
    def positions(self) -> dict[int, int]:
        """{partition of the topic: the next offset to read}."""
        return {partition.partition: self._consumer.position(partition) for partition in self._consumer.assignment()}

    @property
    def known(self) -> bool:
        """Whether every partition has been published to."""
        return all(page.accounted is not None for page in self._pages)

    @property
    def accounted(self) -> dict[int, int]:
        """{raw partition: the offset below which all rows are in the requests of every partition}."""
        accounts = [page.accounted or {} for page in self._pages]
        return {partition: min(one.get(partition, 0) for one in accounts) for partition in set().union(*accounts)}

    def requests(self, partitions: Iterable[int] | None = None) -> list[Request]:
        """Return the open requests of these partitions of the topic, or of all: largest deficit first."""
        pages = self._pages if partitions is None else [self._pages[partition] for partition in partitions]
        found = [request for page in pages for request in page.open.values()]
        return sorted(found, key=lambda request: (-request.deficit, request.label))


class Shares(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions of the requests topic whose cells are this producer's to fill; a context.

    `changes` rises whenever the partitions have changed hands.
    """

    def __init__(self, connection: Connection, family: Family) -> None:
        settings = connection.settings
        self.partitions: frozenset[int] = frozenset()
        self.changes = 0
        self._consumer = connection.consumer(
            group_id=f"{settings.namespace}.{family.name}.producers",
            auto_offset_reset="earliest",
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 3),
        )
        self._consumer.subscribe([topic_name(settings, family.name, REQUESTS)], listener=self)

    def __enter__(self) -> Shares:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def stay(self) -> None:
        """Take part in what the group decides; to be called often."""
        # Nothing is read here: the board reads.
        self._consumer.pause(*self._consumer.assignment())
        # A client that is given no time never joins.
        self._consumer.poll(timeout_ms=_JOIN_MS)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let go of what the group takes back."""
        self.partitions -= {partition.partition for partition in revoked}
        self.changes += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take what the group gives."""
        self.partitions |= {partition.partition for partition in assigned}
        self.changes += 1
