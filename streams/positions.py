"""The refine stage's positions: under which group they are committed, and how they are read.

A position committed there, in the transaction that wrote a raw record's outputs, is the authority on what was refined;
Faust's own group is not. Its metadata holds the id of the raw topic that it belongs to.
"""

from __future__ import annotations

from broker.clients import Connection
from broker.topics import group_offsets, topic_id, topic_name
from schema.record import RAW
from schema.settings import Settings


def worker_group(settings: Settings) -> str:
    """Return the group that all refine workers of a namespace are members of, which is also the name of their app."""
    return f"{settings.namespace}-refine"


def position_group(settings: Settings, family: str) -> str:
    """Return the group under which the refine workers of `family` commit their positions in its raw topic."""
    return f"{settings.namespace}.{family}.positions"


def bound_positions(connection: Connection, family: str) -> dict[int, int]:
    """Return the positions committed for the raw topic of `family` as it is now; a partition without one is absent.

    A position that belongs to a raw topic which was deleted and created again does not count.

    Raises:
        BrokerError: the topic does not exist, or the broker cannot be asked.
    """
    topic = topic_name(connection.settings, family, RAW)
    own_id = topic_id(connection, topic)
    committed = group_offsets(connection, position_group(connection.settings, family), topic)
    # Positions of older versions carry no id.
    return {partition: found.offset for partition, found in committed.items() if found.metadata in ("", own_id)}
