"""The folder of a training run: checkpoints that are there whole or not at all, and which one is the newest.

::

    OUT/
        step-00000200/    a checkpoint: what its writer put there
        step-00000400/
        .lock             held by the process that trains

A checkpoint is written in four steps, so that `kill -9`, or a power cut, at any moment leaves the earlier ones as they
were and at most a leftover, which the next start removes:

1. Write its files into a folder beside its place, whose name begins with a dot.
2. Flush every file, and the folder, to disk.
3. Rename the folder into place, and flush that to disk.
4. Remove the oldest beyond those to keep, each renamed out of its place first.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from schema.errors import CheckpointError

_STEP = re.compile(r"step-(\d{8,})")
_LEFTOVERS = ".step-*"


class RunFolder:
    """The checkpoints of one run.

    Args:
        out: the run's folder.
        keep: how many of the newest to keep.
    """

    def __init__(self, out: Path, keep: int) -> None:
        self.out = out
        self._keep = keep

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in this folder, which is made if absent; remove leftovers.

        Raises:
            CheckpointError: another process holds it, or it cannot be made.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.out / ".lock")
            lock.acquire(blocking=False)
        except Timeout:
            raise CheckpointError(
                f"another process trains in {self.out}: wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"{self.out} cannot be used ({error.strerror or error}): choose another --out"
            ) from None
        try:
            for leftover in self.out.glob(_LEFTOVERS):
                shutil.rmtree(leftover)
            yield
        finally:
            lock.release()

    def place(self, step: int) -> Path:
        """Return where the checkpoint of `step` stands, or would."""
        return self.out / f"step-{step:08d}"

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Give a folder to write the checkpoint of `step` into; it is in its place once the context ends.

        Raises:
            CheckpointError: the disk does not take it.
        """
        making = self.out / f".{self.place(step).name}.{os.getpid()}.part"
        try:
            making.mkdir()
            yield making  # 1
            for path in (*making.iterdir(), making):
                flush(path)  # 2
            making.rename(self.place(step))  # 3
            flush(self.out)
            self._forget(newest_first(self.out)[self._keep :])  # 4
        except OSError as error:
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.out} ({error.strerror or error}): "
                "make room; the earlier ones are whole"
            ) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints, the oldest first."""
        self._forget(newest_first(self.out))

    def _forget(self, checkpoints: list[Path]) -> None:
        for checkpoint in reversed(checkpoints):
            # Renamed first: nothing half removed ever stands under a checkpoint's name.
            leftover = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}.old")
            checkpoint.rename(leftover)
            shutil.rmtree(leftover)


def newest_first(out: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, the one with the most steps first."""
    found = [(int(match[1]), path) for path in out.glob("step-*") if (match := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that `path` means: the newest in a run's folder, or `path` itself if it is one.

    Raises:
        CheckpointError: there is none.
    """
    inside = newest_first(path)
    if inside:
        return inside[0]
    if (path / "config.json").is_file():
        return path
    raise CheckpointError(f"{path} holds no checkpoint: name the folder that `feedmill train` wrote (its --out)")


def flush(path: Path) -> None:
    """Return once the file's bytes, or the folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
