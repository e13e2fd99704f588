"""What is compared: a file or a topic by the name that a user gives it, read as frames of one family.

A file is what a producer wrote with `--out`, or a replay: JSON lines, Parquet or Arrow IPC. A topic is read once, up to
what is committed when the reading begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from broker.clients import Connection
from broker.topics import list_topics, topic_name
from consumers.compare.files import FileSource
from consumers.compare.rows import Rows
from consumers.compare.topics import TopicSource
from consumers.replay.formats import ENDINGS
from schema.errors import UsageError
from schema.family import Family
from schema.record import CLEAN, RAW, REJECTED
from schema.registry import FAMILIES, family_named

TOPIC_PREFIX = "topic:"
STAGES = (RAW, CLEAN, REJECTED)


class ComparisonSource(Protocol):
    """Rows somewhere."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    def families(self) -> list[str]:
        """Return the names of the families that its rows can be of."""
        ...

    def rows(self, family: Family) -> Iterator[Rows]:
        """Yield its rows, in order, in frames of bounded size."""
        ...


def source_named(text: str, connect: Callable[[], Connection]) -> ComparisonSource:
    """Return the file or topic that `text` names; only for a topic is a connection asked for.

    Args:
        text: a path; `topic:NAME`, or NAME where no file has it: a raw, clean or rejected topic of this namespace.
        connect: gives the connection.

    Raises:
        UsageError: it is neither, or a file of no known format.
        BrokerError: no broker answers.
    """
    path, name = Path(text), text.removeprefix(TOPIC_PREFIX)
    if name == text and (path.exists() or path.suffix in ENDINGS):
        return FileSource(path)
    if name == text and text.count(".") < 2:
        raise UsageError(f"{text!r} is neither a file nor a topic: name a {', '.join(ENDINGS)} file, or topic:NAME")
    connection = connect()
    known = {topic_name(connection.settings, family, stage): family for family in FAMILIES for stage in STAGES}
    held = [topic for topic in list_topics(connection) if topic in known]
    if name not in held:
        raise UsageError(f"there is no topic {name!r} of examples: use one of {', '.join(held) or '(none yet)'}")
    return TopicSource(connection, name, known[name])


def common_family(sources: Iterable[ComparisonSource], asked: str | None) -> Family:
    """Return the family that all sources are of: the one asked for, or else the one that each can be of.

    Raises:
        UnknownFamilyError: none is registered under the name asked for.
        UsageError: a source is of another family, or could be of several and none was asked for.
    """
    found: dict[str, list[str]] = {source.name: source.families() for source in sources}
    if asked is not None:
        family = family_named(asked)
        for name, families in found.items():
            if asked not in families:
                raise UsageError(f"{name} holds no rows of the family {asked!r}: {_can_be(families)}")
        return family
    shared = [family for family in FAMILIES if all(family in families for families in found.values())]
    if len(shared) == 1:
        return FAMILIES[shared[0]]
    told = "; ".join(f"{name}: {_can_be(families)}" for name, families in found.items())
    raise UsageError(f"the two are not of one family that can be told ({told}): give --family, or two of one family")


def _can_be(families: list[str]) -> str:
    return f"its columns are those of {' or '.join(families)}" if families else "its columns are those of no family"
