"""Topics: create, list and delete them, and read their limits, offsets and committed positions (Kafka's admin API).

The functions read the read_committed view unless their docstrings say otherwise, so an end is the last stable offset.
Transaction markers have offsets too, so `position < end` does not mean that there are records to read: ask
`broker.committed.has_records`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    NotCoordinatorError,
    TopicAlreadyExistsError,
)
from kafka.protocol.consumer import IsolationLevel

from broker.clients import HEADER_ROOM_BYTES, Connection, raw_limit_bytes, rejected_limit_bytes
from schema.errors import BrokerError
from schema.record import RAW, REJECTED, REQUESTS, RETRACTIONS, STAGES
from schema.settings import Settings

# The first question about a consumer group makes Kafka create the topic of all groups, which takes time.
COORDINATOR_TIMEOUT_S = 30.0
COORDINATOR_RETRY_S = 0.05
# The smallest segment that Kafka accepts: some thousand records.
REQUESTS_SEGMENT_BYTES = 1024 * 1024

Result = TypeVar("Result")


@dataclass(frozen=True)
class Extent:
    """The offset range of one partition: its first offset that still exists, and the last stable offset + 1."""

    begin: int
    end: int

    def can_start_at(self, offset: int) -> bool:
        """Return whether reading can start at `offset`: it exists, or it is the end."""
        return self.begin <= offset <= self.end


def topic_name(settings: Settings, family: str, stage: str) -> str:
    """Return `<namespace>.<family>.<stage>`.

    Raises:
        ValueError: `stage` is not in `STAGES`.
    """
    if stage not in STAGES:
        raise ValueError(f"no stage {stage!r}: use one of {', '.join(STAGES)}")
    return f"{settings.namespace}.{family}.{stage}"


def topic_limits(settings: Settings, stage: str) -> dict[str, str]:
    """Return the configuration for creating a topic of `stage`."""
    limit_bytes = {RAW: raw_limit_bytes(settings), REJECTED: rejected_limit_bytes(settings)}.get(
        stage, settings.record_max_bytes + HEADER_ROOM_BYTES
    )
    limits = {
        "max.message.bytes": str(limit_bytes),
        # Batches are stored as sent, because micro-batches are already compressed. "uncompressed" is wrong even for
        # raw: the broker decompresses in its heap, and a batch of 30 kB with 300 MB ended a broker of 512 MB.
        "compression.type": "producer",
        # Data is kept until somebody deletes it, whatever the cluster's default.
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
    }
    if stage == REQUESTS:
        # Readers start at the beginning, so the topic must stay small. Kafka compacts only closed segments, and closes
        # one after 1 GB or a week by default; a request has some hundred bytes.
        limits |= {
            "cleanup.policy": "compact",
            "segment.bytes": str(REQUESTS_SEGMENT_BYTES),
            "min.cleanable.dirty.ratio": "0.2",
        }
    return limits


def ensure_topics(connection: Connection, families: Iterable[str]) -> None:
    """Create the missing topics of `families`, one per stage, and return once all topics have leaders.

    Safe to call from several processes at once. An existing topic is not changed.

    Raises:
        BrokerError: the broker refuses to create a topic.
    """
    settings = connection.settings
    wanted = {topic_name(settings, family, stage): stage for family in families for stage in STAGES}
    with _admin(connection) as admin:
        existing = set(admin.list_topics())
        missing = {
            name: {
                # One partition orders all retractions, so one offset says which of them a reader knows.
                "num_partitions": 1 if stage == RETRACTIONS else settings.partitions,
                "replication_factor": settings.replication_factor,
                "configs": topic_limits(settings, stage),
            }
            for name, stage in wanted.items()
            if name not in existing
        }
        if missing:
            for created in admin.create_topics(missing, raise_errors=False)["topics"]:
                if created["error_code"] not in (0, TopicAlreadyExistsError.errno):
                    raise BrokerError(
                        f"topic {created['name']} cannot be created ({created['error_message']}): check "
                        "FEEDMILL_PARTITIONS, FEEDMILL_REPLICATION_FACTOR and your rights on the cluster"
                    )
        admin.wait_for_topics(list(wanted))


def delete_topics(connection: Connection, names: Iterable[str]) -> None:
    """Delete the topics of these names, with all their records.

    Raises:
        BrokerError: a topic does not exist, or this user may not delete it.
    """
    with _admin(connection) as admin:
        admin.delete_topics(list(names))


def list_topics(connection: Connection) -> list[str]:
    """Return the names of the topics in the settings' namespace, sorted."""
    with _admin(connection) as admin:
        return sorted(name for name in admin.list_topics() if name.startswith(f"{connection.settings.namespace}."))


def topic_exists(connection: Connection, topic: str) -> bool:
    """Return whether `topic` exists."""
    with _admin(connection) as admin:
        return topic in set(admin.list_topics())


def partition_count(connection: Connection, topic: str) -> int:
    """Return the number of partitions of `topic`.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        return len(_partitions(admin, topic))


def extents(connection: Connection, topic: str) -> dict[int, Extent]:
    """Return the extent of each partition of `topic`, by number; `end` is the last stable offset.

    Raises:
        BrokerError: the topic does not exist.
    """
    return identified_extents(connection, topic)[1]


def identified_extents(connection: Connection, topic: str) -> tuple[str, dict[int, Extent]]:
    """Return the `topic_id` and the `extents` of `topic`, read with one client.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        described = _described(admin, topic)
        partitions = _numbered(topic, described)
        begins = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        ends = admin.list_partition_offsets(
            dict.fromkeys(partitions, OffsetSpec.LATEST), isolation_level=IsolationLevel.READ_COMMITTED
        )
    by_number = {each.partition: Extent(begins[each].offset, ends[each].offset) for each in partitions}
    return str(described["topic_id"]), by_number


def write_offsets(connection: Connection, topic: str) -> dict[int, int]:
    """Return the offset that the next record of each partition of `topic` will get, after open transactions too.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        asked = dict.fromkeys(_partitions(admin, topic), OffsetSpec.LATEST)
        ends = admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return {each.partition: ends[each].offset for each in asked}


def topic_id(connection: Connection, topic: str) -> str:
    """Return the id that Kafka gave `topic` at its creation; a topic that was created again has another id.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        return str(_described(admin, topic)["topic_id"])


def undecided(connection: Connection, topic: str) -> dict[int, int]:
    """Return how many offsets of each partition are blocked by an open transaction; other partitions are absent.

    A committed transaction stays open on a partition until its marker is written there.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        asked = dict.fromkeys(_partitions(admin, topic), OffsetSpec.LATEST)
        stable = admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
        ends = admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return {
        each.partition: ends[each].offset - stable[each].offset
        for each in asked
        if ends[each].offset > stable[each].offset
    }


def committed_positions(connection: Connection, group: str, topic: str) -> dict[int, int]:
    """Return the offsets that `group` has committed for `topic`, by partition; partitions without one are absent.

    Raises:
        BrokerError: the topic does not exist.
    """
    return {partition: committed.offset for partition, committed in group_offsets(connection, group, topic).items()}


@dataclass(frozen=True)
class CommittedOffset:
    """An offset that a group has committed for a partition, with the text committed beside it."""

    offset: int
    metadata: str


def group_offsets(connection: Connection, group: str, topic: str) -> dict[int, CommittedOffset]:
    """Return the commits of `group` for `topic`, by partition; partitions without one are absent.

    Raises:
        BrokerError: the topic does not exist.
    """
    with _admin(connection) as admin:
        partitions = _partitions(admin, topic)
        offsets = _once_coordinated(lambda: admin.list_group_offsets({group: partitions}))[group]
    return {
        each.partition: CommittedOffset(committed.offset, committed.metadata or "")
        for each, committed in offsets.items()
        if committed.offset >= 0
    }


@contextmanager
def _admin(connection: Connection) -> Iterator[KafkaAdminClient]:
    with client_errors(connection), connection.lend_admin() as admin:
        yield admin


@contextmanager
def client_errors(connection: Connection) -> Iterator[None]:
    """Raise a `BrokerError` in place of an exception of Kafka's clients."""
    try:
        yield
    except KafkaError as error:
        raise BrokerError(
            f"Kafka at {connection.servers} could not answer ({type(error).__name__}): run `feedmill doctor`"
        ) from error


def _described(admin: KafkaAdminClient, topic: str) -> dict[str, Any]:
    described: dict[str, Any] | None = {each["name"]: each for each in admin.describe_topics([topic])}.get(topic)
    if described is None or described["error_code"] != 0:
        raise BrokerError(f"topic {topic} does not exist: create it with `feedmill up`, or start a producer or worker")
    return described


def _partitions(admin: KafkaAdminClient, topic: str) -> list[TopicPartition]:
    return _numbered(topic, _described(admin, topic))


def _numbered(topic: str, described: Mapping[str, Any]) -> list[TopicPartition]:
    return sorted(TopicPartition(topic, partition["partition_index"]) for partition in described["partitions"])


def _once_coordinated(ask: Callable[[], Result]) -> Result:
    deadline = time.monotonic() + COORDINATOR_TIMEOUT_S
    while True:
        try:
            return ask()
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if time.monotonic() > deadline:
                raise
            time.sleep(COORDINATOR_RETRY_S)
