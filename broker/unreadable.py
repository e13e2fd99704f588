"""Which batch of records a client could not read: looked up in the error, because no client says it in full.

aiokafka and kafka-python check a batch in a function whose local variables hold the batch. These are private parts of
the clients, whose versions are pinned for that reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

# What aiokafka and kafka-python call the batch that they check.
_NAMES = ("next_batch", "batch")


@dataclass(frozen=True)
class UnreadableBatch:
    """A batch that could not be read.

    Attributes:
        partition: the number of its partition; None if the client does not say.
        offsets: those of the whole batch, some of which may lie before the position that was read from.
    """

    partition: int | None
    offsets: range


def unreadable_batch(error: BaseException) -> UnreadableBatch | None:
    """Return the batch whose reading raised `error`; None if the error is of another kind.

    >>> unreadable_batch(OSError("no route")) is None
    True
    """
    for frame in _frames(error.__traceback__):
        for name in _NAMES:
            batch: Any = frame.f_locals.get(name)
            begin, end = getattr(batch, "base_offset", None), getattr(batch, "next_offset", None)
            if isinstance(begin, int) and isinstance(end, int):
                place = getattr(frame.f_locals.get("self"), "topic_partition", None)
                return UnreadableBatch(getattr(place, "partition", None), range(begin, end))
    return None


def _frames(traceback: TracebackType | None) -> Iterator[Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next
