"""Reads a regular file of a tree that may change or be hostile: no link is followed and no FIFO or device is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# O_NONBLOCK: a FIFO that took the place of a file must not block the open.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_regular(path: Path, limit_bytes: int) -> bytes | None:
    """Return the bytes of a regular file, or None if it has more than `limit_bytes`.

    At most `limit_bytes + 1` bytes are in memory, whatever size the file has or takes while it is read.

    Raises:
        OSError: the file cannot be opened or read, or it is not a regular file.
    """
    descriptor = os.open(path, _FLAGS)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > limit_bytes:
            return None
        pieces: list[bytes] = []
        size = 0
        while size <= limit_bytes and (piece := stream.read(limit_bytes + 1 - size)):
            pieces.append(piece)
            size += len(piece)
    return None if size > limit_bytes else b"".join(pieces)


def text_of(path: Path, limit_bytes: int = 1 << 20) -> str | None:
    """Return a small UTF-8 file as text, or None if it is missing, unreadable, too large or not UTF-8."""
    try:
        data = read_regular(path, limit_bytes)
        return None if data is None else data.decode("utf-8-sig")
    except (OSError, ValueError):
        return None
