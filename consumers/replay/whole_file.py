"""Write a complete file or no file, with a manifest that always matches the bytes next to it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from schema.errors import ReplayError
from schema.stale_files import in_making


class WholeFile:
    """A file being written: write to `stream`, then `place` it with its manifest.

    Placing has four steps. A crash between any two leaves the earlier file, or a file without a manifest, and never a
    manifest of other bytes:

    1. Flush the file's bytes, and the manifest's, to disk under temporary names.
    2. Remove the manifest of an earlier file of that name.
    3. Move the file into place.
    4. Move the manifest into place.
    """

    def __init__(self, path: Path, manifest: Path) -> None:
        self._path, self._manifest = path, manifest
        self._making, self._making_manifest = (in_making(place, "part") for place in (path, manifest))
        self.stream: BinaryIO = self._making.open("wb")

    def close(self) -> str:
        """Finish the stream, flush it to disk (step 1) and return the sha256 of the bytes, in hex."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        with self._making.open("rb") as written:
            return hashlib.file_digest(written, "sha256").hexdigest()

    def place(self, manifest: str) -> None:
        """Do steps 1 (for the manifest) to 4."""
        with self._making_manifest.open("w", encoding="utf-8") as stream:
            stream.write(manifest)
            stream.flush()
            os.fsync(stream.fileno())  # 1
        self._manifest.unlink(missing_ok=True)  # 2
        self._making.replace(self._path)  # 3
        self._making_manifest.replace(self._manifest)  # 4

    def discard(self) -> None:
        """Remove the temporary files that were not placed."""
        # On a full disk closing fails, too, because the last bytes have no room.
        with suppress(OSError):
            self.stream.close()
        self._making.unlink(missing_ok=True)
        self._making_manifest.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path, manifest: Path) -> Iterator[WholeFile]:
    """Give a `WholeFile`, and remove its temporary files if it was not placed.

    Raises:
        ReplayError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        making = WholeFile(path, manifest)
        try:
            yield making
        finally:
            making.discard()
    except OSError as error:
        raise ReplayError(f"{path} cannot be written ({error.strerror or error}): choose another place") from error
