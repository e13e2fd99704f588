"""Read bytes as they arrive from a file or a pipe, look ahead at the first ones, and decompress.

Takes an open file; returns streams whose `read` returns the available bytes instead of waiting for the size asked for.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import select
import stat
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import lz4.frame
import zstandard

from producers.ingest.kinds import HEAD_BYTES, Kind, enough
from schema.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 256 * 1024
# How often a reader that waits for a pipe checks whether to stop.
_LOOK_INTERVAL_S = 0.1
# After a stop the bytes already in a pipe are still read, for at most this long, because a writer may never end.
_LAST_READ_S = 1.0
# zstd's own default limit (2^27); `zstd --long=31` needs 2 GiB of memory to be read.
_ZSTD_WINDOW_BYTES = 128 * 1024 * 1024
# A zstd block has at least 4 bytes and at most 128 KiB decompressed, so a piece of this size gives at most 32 MiB.
_ZSTD_PIECE_BYTES = 1024
# The decompressors' errors for truncated or damaged data.
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError, RuntimeError)


class ReadingStopped(Exception):  # noqa: N818 - a requested end, not an error
    """The reading was stopped, and all available bytes were read."""


class Arriving(io.RawIOBase):
    """A stream over an open file or pipe, from its current position; `read` returns the available bytes.

    Args:
        source: the file or pipe; it stays open when this stream is closed.
        stop: once set, bytes already in a pipe are still read, and then `ReadingStopped` is raised.
    """

    def __init__(self, source: BinaryIO, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._stopped_at: float | None = None
        self._head = b""
        try:
            self._file = source.fileno()
            mode = os.fstat(self._file).st_mode
        except (OSError, ValueError):
            self._file, self._waits = -1, False
        else:
            # Reading anything except a file on disk may have to wait.
            self._waits = not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))

    def readable(self) -> bool:
        """Return True."""
        return True

    def look(self) -> bytes:
        """Return enough of the first bytes to detect the file's kind; later reads return these bytes again."""
        head = b""
        while not enough(head) and (more := self._more(HEAD_BYTES)):
            head += more
        self._head = head + self._head
        return head

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the available bytes into `buffer` and return their number; 0 at the end.

        Raises:
            ReadingStopped: the reading was stopped.
        """
        view = memoryview(buffer)
        data = self._head[: len(view)] or self._more(len(view))
        self._head = self._head[len(data) :] if self._head else b""
        view[: len(data)] = data
        return len(data)

    def check(self) -> None:
        """Raise `ReadingStopped` if the reading was stopped."""
        if self._stop.is_set():
            raise ReadingStopped

    def _more(self, size: int) -> bytes:
        if self._waits:
            self._wait()
            return os.read(self._file, size)
        self.check()
        return cast(bytes, getattr(self._source, "read1", self._source.read)(size))

    def _wait(self) -> None:
        while True:
            timeout_s = _LOOK_INTERVAL_S
            if self._stop.is_set():
                now = time.monotonic()
                self._stopped_at = self._stopped_at or now
                if now - self._stopped_at > _LAST_READ_S:
                    raise ReadingStopped
                timeout_s = 0.0
            if select.select([self._file], [], [], timeout_s)[0]:
                return
            if self._stop.is_set():
                raise ReadingStopped


def decompressed(stream: io.RawIOBase, kind: Kind) -> BinaryIO:
    """Return the content of a compressed stream; reading truncated or damaged data raises one of `DAMAGED`.

    Concatenated members are read as one. Memory is bounded for any expanded size: only a window and the bytes asked for
    are in memory.
    """
    opened: Any
    match kind:
        case Kind.GZIP:
            opened = gzip.GzipFile(fileobj=cast(BinaryIO, stream))
        case Kind.BZIP2:
            opened = bz2.BZ2File(cast(BinaryIO, stream))
        case Kind.XZ:
            opened = lzma.LZMAFile(cast(BinaryIO, stream))  # noqa: SIM115 - its reader closes it
        case Kind.ZSTD:
            opened = _ZstdStream(stream)
        case Kind.LZ4:
            opened = lz4.frame.LZ4FrameFile(stream)
        case _:
            raise ValueError(f"{kind} is not compressed")
    return cast(BinaryIO, opened)


class _ZstdStream(io.RawIOBase):
    """The content of consecutive zstd frames; unlike zstandard's own reader it detects a truncated frame."""

    def __init__(self, stream: io.RawIOBase) -> None:
        self._stream = stream
        self._frame: Any = None
        self._compressed = b""
        self._content = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the available bytes into `buffer` and return their number; 0 at the end.

        Raises:
            EOFError: the last frame is cut off.
            zstandard.ZstdError: a frame is damaged.
        """
        while not self._content:
            if not self._compressed and not (more := self._stream.read(READ_BYTES)):
                if self._frame is not None:
                    raise EOFError("the last zstd frame is cut off")
                return 0
            self._compressed = self._compressed or cast(bytes, more)
            self._decompress_piece()
        view = memoryview(buffer)
        data = self._content[: len(view)]
        self._content = self._content[len(data) :]
        view[: len(data)] = data
        return len(data)

    def _decompress_piece(self) -> None:
        piece, self._compressed = self._compressed[:_ZSTD_PIECE_BYTES], self._compressed[_ZSTD_PIECE_BYTES:]
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        self._content = self._frame.decompress(piece)
        if self._frame.eof:
            self._compressed = self._frame.unused_data + self._compressed
            self._frame = None


def some(stream: BinaryIO) -> bytes:
    """Return the next available bytes of `stream`; empty at its end."""
    return cast(bytes, getattr(stream, "read1", stream.read)(READ_BYTES))


def require_seekable(stream: BinaryIO, name: str, kind: Kind) -> None:
    """Check that `stream` is seekable, as Parquet and Arrow files need.

    Raises:
        UsageError: `stream` cannot seek, e.g. because it is a pipe.
    """
    if not stream.seekable():
        raise UsageError(
            f"{name} is {kind.value} on a pipe, but {kind.value} is read from its end: save it as a file first"
        )
