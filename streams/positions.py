"""Positions of the refine stage: the consumer group that they are committed under, and how to read them.

A worker commits its position in the transaction that wrote the outputs of the raw records before it. This position
decides which records count as refined; offsets of Faust's own group do not. Its metadata holds the raw topic's id.
"""

from __future__ import annotations

from broker.clients import Connection
from broker.topics import group_offsets, topic_id, topic_name
from schema.record import RAW
from schema.settings import Settings


def worker_group(settings: Settings) -> str:
    """Return the consumer group of all refine workers of a namespace. It is also the name of their Faust app."""
    return f"{settings.namespace}-refine"


def position_group(settings: Settings, family: str) -> str:
    """Return the consumer group under which the refine workers of `family` commit their raw positions."""
    return f"{settings.namespace}.{family}.positions"


def bound_positions(connection: Connection, family: str) -> dict[int, int]:
    """Return the committed position of each raw partition of `family`; partitions without one are absent.

    Positions of a raw topic that was deleted since are left out.

    Raises:
        BrokerError: the topic does not exist, or the broker does not answer.
    """
    topic = topic_name(connection.settings, family, RAW)
    own_id = topic_id(connection, topic)
    committed = group_offsets(connection, position_group(connection.settings, family), topic)
    # Positions of older versions carry no id.
    return {partition: each.offset for partition, each in committed.items() if each.metadata in ("", own_id)}
