"""The sources of a comparison: files and topics, found by the name a user gives, and read as frames of one family.

A file was written by a producer with `--out` or by a replay: JSON lines, Parquet or Arrow IPC. A topic is read once, up
to its last committed record when reading begins.
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
    """A file or topic with rows."""

    @property
    def name(self) -> str:
        """The source's name in reports."""
        ...

    def families(self) -> list[str]:
        """Return the names of the families that its rows can belong to."""
        ...

    def rows(self, family: Family) -> Iterator[Rows]:
        """Yield its rows, in order, in frames of bounded size."""
        ...


def source_named(text: str, connect: Callable[[], Connection]) -> ComparisonSource:
    """Return the file or topic that `text` names.

    Args:
        text: a path; or `topic:NAME`, a raw, clean or rejected topic of this namespace. NAME alone is enough if no file
            has that name.
        connect: gives the connection; called only for a topic.

    Raises:
        UsageError: `text` is neither a file nor a topic, or the file has an unknown format.
        BrokerError: no broker answers.
    """
    path, name = Path(text), text.removeprefix(TOPIC_PREFIX)
    if name == text and (path.exists() or path.suffix in ENDINGS):
        return FileSource(path)
    if name == text and text.count(".") < 2:
        raise UsageError(f"{text!r} is neither a file nor a topic: name a {', '.join(ENDINGS)} file, or topic:NAME")
    connection = connect()
    known = {topic_name(connection.settings, family, stage): family for family in FAMILIES for stage in STAGES}
    existing = [topic for topic in list_topics(connection) if topic in known]
    if name not in existing:
        raise UsageError(f"there is no topic {name!r} of examples: use one of {', '.join(existing) or '(none yet)'}")
    return TopicSource(connection, name, known[name])


def common_family(sources: Iterable[ComparisonSource], asked: str | None) -> Family:
    """Return the family of all sources: `asked`, or else the only family that fits each source.

    Raises:
        UnknownFamilyError: no family is registered under the name `asked`.
        UsageError: a source has rows of another family, or several families fit and `asked` is None.
    """
    candidates: dict[str, list[str]] = {source.name: source.families() for source in sources}
    if asked is not None:
        family = family_named(asked)
        for name, families in candidates.items():
            if asked not in families:
                raise UsageError(f"{name} holds no rows of the family {asked!r}: {_can_be(families)}")
        return family
    shared = [family for family in FAMILIES if all(family in families for families in candidates.values())]
    if len(shared) == 1:
        return FAMILIES[shared[0]]
    details = "; ".join(f"{name}: {_can_be(families)}" for name, families in candidates.items())
    raise UsageError(f"no single family fits both sources ({details}): give --family, or two sources of one family")


def _can_be(families: list[str]) -> str:
    return f"its columns are those of {' or '.join(families)}" if families else "its columns are those of no family"
