"""What producers that follow know: the open requests of a family, and which of them are theirs to fill.

`RequestBoard` reads the whole requests topic, as often as it is asked. `CellAssignment` is membership of the group of
producers that follow the family. Each partition of the topic, and with it each cell, belongs to one of them at a time.
The partitions of a killed producer go to the others once its session has timed out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import MemberState, OffsetAndMetadata

from broker.clients import Connection
from broker.topics import extents, topic_name
from schema.errors import RecordError
from schema.family import Family
from schema.record import REQUESTS
from schema.requests import ACCOUNTED, Account, Request, decode_account, decode_request

log = logging.getLogger(__name__)

_JOIN_MS = 500
_STAY_MS = 10
_METADATA_MS = 5000
# A batch may be what a language model writes, and a producer that is at one keeps its cells: newcomers wait for it.
_BATCH_LIMIT_MS = 60 * 60 * 1000


@dataclass
class _RequestsPage:
    """One partition of the topic, as read so far: its requests, its account, and the end it had when last looked at."""

    end: int
    open: dict[str, Request] = field(default_factory=dict)
    account: Account | None = None


class RequestBoard:
    """The requests of a family; a context."""

    def __init__(self, connection: Connection, family: Family) -> None:
        self._connection = connection
        self._family = family
        self._topic = topic_name(connection.settings, family.name, REQUESTS)
        self._pages: list[_RequestsPage] = []
        self._consumer = connection.consumer(auto_offset_reset="earliest")
        try:
            self.look()
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> RequestBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def look(self) -> None:
        """Take up partitions that were added; from now on, what stands on the topic now has to be read to be `known`.

        Raises:
            BrokerError: the broker cannot be reached.
        """
        found = extents(self._connection, self._topic)
        for number, page in enumerate(self._pages):
            page.end = found[number].end
        starts = self.positions | {number: found[number].begin for number in range(len(self._pages), len(found))}
        if len(starts) > len(self._pages):
            self._pages += [_RequestsPage(found[number].end) for number in range(len(self._pages), len(found))]
            self._consumer.assign([TopicPartition(self._topic, number) for number in starts])
            for number, offset in starts.items():
                self._consumer.seek(TopicPartition(self._topic, number), offset)

    def read(self, wait_s: float) -> bool:
        """Take in what is new, waiting up to `wait_s` for a first record; return whether there was any."""
        polled = self._consumer.poll(timeout_ms=int(wait_s * 1000))
        for partition, records in polled.items():
            for record in records:
                try:
                    self._take(self._pages[partition.partition], record.key, record.value)
                except RecordError as error:
                    # Whoever wrote it, it asks for nothing that can be made.
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
        return {partition.partition: self._consumer.position(partition) for partition in self._consumer.assignment()}

    @property
    def known(self) -> bool:
        """Whether every partition has been published to, and read as far as it reached at the last look."""
        if any(page.account is None for page in self._pages):
            return False
        positions = self.positions
        return all(positions[partition] >= page.end for partition, page in enumerate(self._pages))

    @property
    def account(self) -> Account:
        """What the requests of every partition take into account."""
        accounts = [page.account or Account({}) for page in self._pages]
        partitions = set().union(*(account.raw for account in accounts))
        return Account(
            {partition: min(account.raw.get(partition, 0) for account in accounts) for partition in partitions},
            max(account.moved for account in accounts),
        )

    def requests(self, partitions: Iterable[int] | None = None) -> list[Request]:
        """Return the open requests of these partitions of the topic, or of all: largest deficit first."""
        numbers = range(len(self._pages)) if partitions is None else partitions
        # A partition that the group knows of may be new to this board.
        pages = [self._pages[number] for number in numbers if number < len(self._pages)]
        found = [request for page in pages for request in page.open.values()]
        return sorted(found, key=lambda request: (-request.deficit, request.label))


class CellAssignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions of the requests topic whose cells are this producer's to fill; a context.

    `changes` rises whenever the partitions have changed hands.
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
            # The group's leader learns so of partitions: a topic it knows nothing of is shared out as if it had none.
            metadata_max_age_ms=_METADATA_MS,
        )
        self._consumer.subscribe([self._topic], listener=self)

    def __enter__(self) -> CellAssignment:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def stay(self) -> None:
        """Take part in what the group decides; to be called often."""
        # Nothing is read here: the board reads.
        self._consumer.pause(*self._consumer.assignment())
        # A join that is not over when its poll ends is begun again: a client that is given no time never joins.
        self._consumer.poll(timeout_ms=_STAY_MS if self._is_stable else _JOIN_MS)
        if not self._is_stable:
            # The client forgets, between two polls, a join that it began because partitions were added: neither in the
            # group nor on its way into it, it would have no part in it for ever.
            self._consumer._coordinator.request_rejoin()

    @property
    def _is_stable(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def hold(self) -> bool:
        """Ask the group whether the partitions are still this producer's; it may have slept through its session."""
        changes = self.changes
        # The group takes commits from its present members alone; what is committed is read by nobody.
        asked = {TopicPartition(self._topic, partition): OffsetAndMetadata(0, "", -1) for partition in self.partitions}
        try:
            self._consumer.commit(asked, timeout_ms=self._session_ms)
        except KafkaError as error:
            log.info("partitions of %s are no longer held: %s", self._topic, error)
            return False
        return bool(asked) and changes == self.changes

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let go of what the group takes back."""
        self.partitions -= {partition.partition for partition in revoked}
        self.changes += 1

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take what the group gives."""
        self.partitions |= {partition.partition for partition in assigned}
        self.changes += 1
