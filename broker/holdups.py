"""Find causes that block a topic's readers: open transactions, and consumer groups without members.

The answers are for messages to people. They are empty if the broker is too old or does not allow this user to ask.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import KafkaError

from broker.clients import Connection
from broker.topics import undecided


@dataclass(frozen=True)
class OpenTransaction:
    """An open transaction: nobody can read the records from `offset` of `partition` on.

    Attributes:
        producer_id: Kafka's number for the producer.
        transactional_id: the producer's own name, or None if Kafka does not report it.
        quiet_s: seconds since the producer's last record there.
    """

    partition: int
    offset: int
    producer_id: int
    transactional_id: str | None
    quiet_s: float

    def __str__(self) -> str:
        name = f"{self.transactional_id!r}" if self.transactional_id else "unknown"
        return (
            f"an open transaction in partition {self.partition} from offset {self.offset} on (transactional id {name}, "
            f"producer id {self.producer_id}, last record {self.quiet_s:.0f} s ago)"
        )


def open_transactions(connection: Connection, topic: str) -> list[OpenTransaction]:
    """Return the open transactions of `topic`, by partition and offset.

    Raises:
        BrokerError: the topic does not exist.
    """
    partitions = [TopicPartition(topic, number) for number in undecided(connection, topic)]
    if not partitions:
        return []
    try:
        with connection.lend_admin() as admin:
            states = admin.describe_producers(partitions)
            listed = admin.list_transactions()
    except KafkaError:
        return []
    names = {each.producer_id: each.transactional_id for listings in listed.values() for each in listings}
    now_ms = time.time() * 1000
    return sorted(
        (
            OpenTransaction(
                topic_partition.partition,
                producer.current_transaction_start_offset,
                producer.producer_id,
                names.get(producer.producer_id),
                max(0.0, (now_ms - producer.last_timestamp) / 1000),
            )
            for topic_partition, state in states.items()
            for producer in state.active_producers
            if producer.current_transaction_start_offset >= 0
        ),
        key=lambda transaction: (transaction.partition, transaction.offset),
    )


@dataclass(frozen=True)
class GroupMembers:
    """The members of a consumer group: how many, and the partitions of each topic that they read."""

    count: int
    assigned: Mapping[str, frozenset[int]]


def group_members(connection: Connection, group: str) -> GroupMembers | None:
    """Return the members that a consumer group has now; None if Kafka does not report them."""
    assigned: defaultdict[str, frozenset[int]] = defaultdict(frozenset)
    try:
        with connection.lend_admin() as admin:
            members = admin.describe_groups([group])[group]["members"]
        for member in members:
            # A member without partitions has no assignment.
            for topic in (member["member_assignment"] or {}).get("assigned_partitions", ()):
                assigned[topic["topic"]] |= frozenset(topic["partitions"])
    except (KafkaError, KeyError):
        return None
    return GroupMembers(len(members), assigned)


def member_count(connection: Connection, group: str) -> int | None:
    """Return how many members a consumer group has now; None if Kafka does not report them."""
    members = group_members(connection, group)
    return None if members is None else members.count
