"""The open requests of a family, and the cells that are assigned to this producer.

`RequestBoard` reads the whole requests topic. `CellAssignment` is membership of the consumer group of all producers
that follow the family: each partition of the topic, and so each cell, belongs to one of them at a time. The partitions
of a killed producer go to the others after its session times out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import MemberState, OffsetAndMetadata

from broker.clients import Connection
from broker.committed import CommittedReader
from broker.topics import extents, topic_name
from schema.errors import RecordError
from schema.family import Family
from schema.record import REQUESTS
from schema.requests import ACCOUNTED, Account, Request, decode_account, decode_request

log = logging.getLogger(__name__)

_JOIN_MS = 500
_STAY_MS = 10
_METADATA_MS = 5000
# A language model may need this long to write a batch. The producer keeps its cells meanwhile; new members wait.
_BATCH_LIMIT_MS = 60 * 60 * 1000


@dataclass
class _RequestsPage:
    """One partition as read so far: its open requests, its account, and the end offset at the last `look`."""

    end: int
    open: dict[str, Request] = field(default_factory=dict)
    account: Account | None = None


class RequestBoard:
    """The open requests of a family, read from its requests topic; a context."""

    def __init__(self, connection: Connection, family: Family) -> None:
        self._connection = connection
        self._family = family
        self._topic = topic_name(connection.settings, family.name, REQUESTS)
        self._pages: list[_RequestsPage] = []
        self._reader = CommittedReader(connection, auto_offset_reset="earliest")
        try:
            self.look()
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> RequestBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def look(self) -> None:
        """Read the topic's end offsets: `known` is then true once everything before them is read. Adds new partitions.

        Raises:
            BrokerError: the broker cannot be reached.
        """
        current = extents(self._connection, self._topic)
        for number, page in enumerate(self._pages):
            page.end = current[number].end
        starts = self.positions | {number: current[number].begin for number in range(len(self._pages), len(current))}
        if len(starts) > len(self._pages):
            self._pages += [_RequestsPage(current[number].end) for number in range(len(self._pages), len(current))]
            self._reader.follow({TopicPartition(self._topic, number): offset for number, offset in starts.items()})

    def read(self, wait_s: float) -> bool:
        """Read new records, waiting up to `wait_s` for the first; return whether any arrived."""
        polled = self._reader.poll(wait_s)
        for partition, records in polled.items():
            for record in records:
                try:
                    self._take(self._pages[partition.partition], record.key, record.value)
                except RecordError as error:
                    # An invalid request, perhaps of a foreign writer, is skipped.
                    log.warning("%s/%d offset %d: %s", record.topic, record.partition, record.offset, error)
        return bool(polled)

    def _take(self, page: _RequestsPage, key: bytes | None, value: bytes | None) -> None:
        label = (key or b"").decode("utf-8", "replace")
        if label == ACCOUNTED:
            page.account = None if value is None else decode_account(value)
        elif value is None:
            page.open.pop(label, None)
        else:
            page.open[label] = decode_request(value, self._family)

    @property
    def positions(self) -> dict[int, int]:
        """{partition of the topic: the next offset to read}."""
        return {partition.partition: offset for partition, offset in self._reader.positions.items()}

    @property
    def known(self) -> bool:
        """Whether every partition has an account and was read up to its end offset of the last `look`."""
        if any(page.account is None for page in self._pages):
            return False
        positions = self.positions
        return all(positions[partition] >= page.end for partition, page in enumerate(self._pages))

    @property
    def account(self) -> Account:
        """The raw offsets that the requests of all partitions account for."""
        accounts = [page.account or Account({}) for page in self._pages]
        partitions = set().union(*(account.raw for account in accounts))
        return Account(
            {partition: min(account.raw.get(partition, 0) for account in accounts) for partition in partitions},
            max(account.moved for account in accounts),
        )

    def requests(self, partitions: Iterable[int] | None = None) -> list[Request]:
        """Return the open requests of these partitions of the topic (default: all), largest deficit first."""
        numbers = range(len(self._pages)) if partitions is None else partitions
        # The consumer group may have assigned a partition that this board has not read yet.
        pages = [self._pages[number] for number in numbers if number < len(self._pages)]
        requests = [request for page in pages for request in page.open.values()]
        return sorted(requests, key=lambda request: (-request.deficit, request.label))


class CellAssignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions of the requests topic whose cells this producer fills; a context.

    `changes` grows at every assignment and every revocation. It polls a consumer of its own, because Kafka's consumer
    group assigns the partitions, and no record is read.
    """

    def __init__(self, connection: Connection, family: Family) -> None:
        settings = connection.settings
        self.partitions: frozenset[int] = frozenset()
        self.changes = 0
        self._topic = topic_name(settings, family.name, REQUESTS)
        self._session_ms = int(settings.session_timeout_s * 1000)
        self._consumer = connection.consumer(
            group_id=f"{settings.namespace}.{family.name}.producers",
            auto_offset_reset="earliest",
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=self._session_ms // 3,
            max_poll_interval_ms=_BATCH_LIMIT_MS,
            # The group's leader sees new partitions only by refreshing its metadata.
            metadata_max_age_ms=_METADATA_MS,
        )
        self._consumer.subscribe([self._topic], listener=self)

    def __enter__(self) -> CellAssignment:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def stay(self) -> None:
        """Poll the consumer group to stay a member and receive assignments; call this often."""
        # No record is read here, because the board reads them.
        self._consumer.pause(*self._consumer.assignment())
        # A join that is not finished within its poll starts again, so too short a poll would never join.
        self._consumer.poll(timeout_ms=_STAY_MS if self._is_stable else _JOIN_MS)
        if not self._is_stable:
            # If partitions were added, the client forgets between two polls that it has to join again. Without this
            # call it would stay outside the group for ever.
            self._consumer._coordinator.request_rejoin()

    @property
    def _is_stable(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def hold(self) -> bool:
        """Return whether the partitions are still this producer's; its session may have expired meanwhile."""
        changes = self.changes
        # The group accepts commits only from its current members. The committed offsets are never read.
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(0, "", -1) for partition in self.partitions
        }
        try:
            self._consumer.commit(offsets, timeout_ms=self._session_ms)
        except KafkaError as error:
            log.info("this producer lost its partitions of %s: %s", self._topic, error)
            return False
        return bool(offsets) and changes == self.changes

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Remove the partitions that the consumer group revokes."""
        self.partitions -= {partition.partition for partition in revoked}
        self.changes += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Add the partitions that the consumer group assigns."""
        self.partitions |= {partition.partition for partition in assigned}
        self.changes += 1
