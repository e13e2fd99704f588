"""Find the batch of records that a client could not read, from the error's traceback.

The clients' messages do not name the batch in full. But aiokafka and kafka-python check a batch in a function whose
local variables hold it. These are private parts of the clients, so their versions are pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

# The names of these local variables in aiokafka and kafka-python.
_NAMES = ("next_batch", "batch")


@dataclass(frozen=True)
class UnreadableBatch:
    """A batch that could not be read.

    Attributes:
        partition: the number of its partition; None if the client does not report it.
        offsets: the offset range of the whole batch, which may begin before the position of the reader.
    """

    partition: int | None
    offsets: range


def unreadable_batch(error: BaseException) -> UnreadableBatch | None:
    """Return the batch whose reading raised `error`; None for any other error.

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
