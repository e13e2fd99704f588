"""A cache on this machine for tokenized documents, shared by ranks, loader workers, epochs and runs.

Tokenizing takes nearly all of the time of a feed of code. The documents that are tokenized together make one file, an
Arrow stream. Its name is a hash of the texts and of everything that decides their windows: so a file never holds the
windows of other texts, whatever happens to the topic. Masking is not part of it, because it differs between epochs.

A file is written under another name and then renamed, so no reader sees a part of it, and two writers are harmless. It
begins with a checksum; a damaged file is made again. After the first file that cannot be written, a warning says so,
and the process writes no more.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from schema.buffers import strings
from schema.errors import RecordError
from schema.record import decode, encode

_log = logging.getLogger("feedmill.feed")

# One row a document: its tokens, the places of its windows, one of four numbers after the other, and how many of the
# tokens are its prompt.
COLUMNS: dict[str, pl.DataType] = {
    "tokens": pl.List(pl.Int32()),
    "places": pl.List(pl.Int32()),
    "prompt": pl.Int32(),
}
# Grows when the same key would have other values.
_VERSION = b"2"
_CHECKSUM_BYTES = 20
# Documents of 256 KiB of text, or one larger document, take a few MB.
_FILE_BYTES = 256 * 1024 * 1024
_ENDING, _UNFINISHED = ".arrow", ".part"
# Every so many writes of a process the size of the folder is looked at.
_LOOK_WRITES = 64
# After this time an unfinished file belongs to a process that was killed.
_UNFINISHED_S = 3600.0


# Files that this process wrote, by folder.
_writes: Counter[Path] = Counter()
# Folders in which this process could not write.
_unwritable: set[Path] = set()


@dataclass(frozen=True)
class TokenCache:
    """A folder of tokenized documents.

    Attributes:
        folder: is made when the first file is written.
        most_bytes: when the files take more, the least recently used ones are removed. A process looks at its first
            write and then at every 64th, so the files may take somewhat more.
    """

    folder: Path
    most_bytes: int

    def key(self, texts: pl.Series, *decisive: str | int) -> str:
        """Return the name for the windows of these texts; `decisive` are the values that decide them."""
        data, bounds = strings(texts.rechunk())
        digest = hashlib.blake2b(_VERSION, digest_size=20)
        digest.update(repr(decisive).encode())
        digest.update(np.ascontiguousarray(bounds - bounds[0]).tobytes())
        digest.update(np.ascontiguousarray(data[bounds[0] : bounds[-1]]).data)
        return digest.hexdigest()

    def read(self, key: str, documents: int) -> pl.DataFrame | None:
        """Return the rows of a file, in `COLUMNS`; None if there is no such file or it is damaged."""
        path = self._path(key)
        try:
            with path.open("rb") as stream:
                value = stream.read(_FILE_BYTES + 1)
            if len(value) > _FILE_BYTES:
                return None
            checksum, payload = value[:_CHECKSUM_BYTES], value[_CHECKSUM_BYTES:]
            if checksum != _checksum(key, payload):
                return None
            frame = decode(payload, COLUMNS, documents, max_bytes=_FILE_BYTES)
        except (OSError, RecordError):
            return None
        with suppress(OSError):
            # The least recently used files are removed first.
            os.utime(path)
        return frame if frame.height == documents and not frame.null_count().sum_horizontal().item() else None

    def write(self, key: str, frame: pl.DataFrame) -> None:
        """Write the rows of a file; if that fails, warn, and write nothing from then on."""
        if self.folder in _unwritable:
            return
        payload = encode(frame)
        path = self._path(key)
        unfinished = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}{_UNFINISHED}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(_checksum(key, payload) + payload)
            unfinished.replace(path)
            _writes[self.folder] += 1
            if _writes[self.folder] % _LOOK_WRITES == 1:
                self._make_room()
        except OSError as error:
            _unwritable.add(self.folder)
            reason = error.strerror or str(error)
            _log.warning("the token cache %s cannot be written (%s): no more files are written", self.folder, reason)
        finally:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_ENDING}"

    def _make_room(self) -> None:
        """Remove the least recently used files if all of them take more than `most_bytes`, and old unfinished ones."""
        files = sorted(self._files())
        size = sum(size for _, size, _ in files)
        for used_s, bytes_, path in files:
            if path.suffix == _UNFINISHED and used_s > time.time() - _UNFINISHED_S:
                continue
            if size <= self.most_bytes and path.suffix != _UNFINISHED:
                continue
            path.unlink(missing_ok=True)
            size -= bytes_

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.glob("??/*"):
            if path.suffix in (_ENDING, _UNFINISHED):
                with suppress(OSError):
                    status = path.stat()
                    yield status.st_mtime, status.st_size, path


def _checksum(key: str, payload: bytes) -> bytes:
    return hashlib.blake2b(payload, key=key.encode(), digest_size=_CHECKSUM_BYTES).digest()
