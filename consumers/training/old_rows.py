"""Sources of a run that continues a model on newer rows, with a share of the rows that it was trained on before.

Newer rows alone would make a model forget the older ones. The newer rows begin at the offsets at which the checkpoint's
snapshot ended; a pass takes each of them once, and repeats older rows as often as their share needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.clients import Connection
from broker.topics import identified_extents
from consumers.sequence.sources import Source
from consumers.sequence.spec import read_state
from consumers.training.checkpoint import read_trainer
from consumers.training.run_folder import find_checkpoint
from schema.errors import UsageError


def newer_and_older(connection: Connection, checkpoint: Path, old_share: float) -> tuple[Source, Source]:
    """Return the rows that arrived after a checkpoint's snapshot, and those before, in a mix.

    Args:
        connection: the broker.
        checkpoint: a checkpoint, or a run's folder, whose newest checkpoint is taken.
        old_share: share of the older rows, above 0 and below 1.

    Raises:
        UsageError: the share is out of range, the run read several topics, its topic was created again, or no row
            arrived since.
        CheckpointError, FeedError: the checkpoint cannot be read.
    """
    if not 0 < old_share < 1:
        raise UsageError(f"the share of old rows is {old_share}: use a number above 0 and below 1, e.g. 0.2")
    found = find_checkpoint(checkpoint)
    sources = read_state(read_trainer(found)["feed"]).spec.sources
    topics = {(source.topic, source.topic_id) for source in sources}
    if len(topics) > 1:
        raise UsageError(f"{found} was trained on {len(topics)} topics: mix the sources of a feed by yourself")
    ((topic, topic_id),) = topics
    identity, held = identified_extents(connection, topic)
    if identity != topic_id:
        raise UsageError(f"{topic} was created again since {found} was trained on it: train without old rows")
    ends = {
        number: max([extent.begin, *(source.bounds[number].end for source in sources if number in source.bounds)])
        for number, extent in held.items()
    }
    if all(extent.end <= ends[number] for number, extent in held.items()):
        raise UsageError(f"no row of {topic} arrived since {found} was trained on it: produce more first")
    namespace = namespace_of(topic)
    newer = Source(namespace=namespace, weight=1 - old_share, start=ends)
    return newer, Source(namespace=namespace, weight=old_share, repeat=True, stop=ends)


def sources_of(saved: Sequence[Sequence[Any]]) -> tuple[Source, ...]:
    """Return the sources of a resumed run, from (topic, weight, repeat) of each; its state has the offsets."""
    return tuple(Source(namespace=namespace_of(topic), weight=weight, repeat=repeat) for topic, weight, repeat in saved)


def namespace_of(topic: str) -> str:
    """Return the namespace of a topic.

    >>> namespace_of("my.space.reduction.clean")
    'my.space'
    """
    return topic.rsplit(".", 2)[0]
