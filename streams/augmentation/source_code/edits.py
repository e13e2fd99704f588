"""Edits of source code: byte ranges of a text and the bytes that replace them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Edit(NamedTuple):
    """Replace the bytes from `start` to `end` of a text by `new`; an insertion has an empty range."""

    start: int
    end: int
    new: bytes


def edited(source: bytes, edits: Iterable[Edit]) -> bytes:
    """Return `source` after edits that do not overlap, in any order.

    Raises:
        ValueError: two edits overlap.

    >>> edited(b"a = b", [Edit(4, 5, b"c"), Edit(0, 1, b"long")])
    b'long = c'
    """
    parts: list[bytes] = []
    at = 0
    for start, end, new in sorted(edits):
        if start < at:
            raise ValueError(f"edits overlap at byte {start}")
        parts += (source[at:start], new)
        at = end
    return b"".join((*parts, source[at:]))
