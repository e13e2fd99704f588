"""The folder of a training run: checkpoints that are complete or absent, and the search for the newest one.

::

    OUT/
        step-00000200/    a checkpoint: the files of its writer
        step-00000400/
        .lock             held by the process that trains

A checkpoint is written in four steps. `kill -9` or a power cut at any moment leaves the earlier checkpoints unchanged,
and at most a leftover folder, which the next start removes:

1. Write the files into a folder next to the final one, with a name that begins with a dot.
2. Flush every file, and the folder, to disk.
3. Rename the folder to its final name, and flush the rename to disk.
4. Remove the oldest checkpoints beyond those to keep; each is renamed first.
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
    """The folder of one run's checkpoints.

    Args:
        out: the run's folder.
        keep: how many of the newest checkpoints to keep.
    """

    def __init__(self, out: Path, keep: int) -> None:
        self.out = out
        self._keep = keep

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if absent, lock it against other processes that train, and remove leftovers.

        Raises:
            CheckpointError: another process has locked the folder, or the folder cannot be made.
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
        """Return the folder of the checkpoint of `step`, whether it exists or not."""
        return self.out / f"step-{step:08d}"

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Give a folder to write the checkpoint of `step` into; it gets its final name when the context ends.

        Raises:
            CheckpointError: the checkpoint cannot be written to disk.
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
                "make room; the earlier checkpoints are complete"
            ) from error
        finally:
            shutil.rmtree(making, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints, the oldest first."""
        self._forget(newest_first(self.out))

    def _forget(self, checkpoints: list[Path]) -> None:
        for checkpoint in reversed(checkpoints):
            # Renamed first, so that a half-removed folder never has a checkpoint's name.
            leftover = checkpoint.with_name(f".{checkpoint.name}.{os.getpid()}.old")
            checkpoint.rename(leftover)
            shutil.rmtree(leftover)


# One of them is in every folder that holds a model; the second is that of an adapter.
_MODEL_CONFIGS = ("config.json", "adapter_config.json")


def newest_first(out: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, the one with the most steps first."""
    by_step = [(int(match[1]), path) for path in out.glob("step-*") if (match := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(by_step, reverse=True)]


def find_checkpoint(path: Path) -> Path:
    """Return a checkpoint: the newest in a run's folder `path`, or `path` itself if it is a checkpoint.

    Raises:
        CheckpointError: there is no checkpoint.
    """
    inside = newest_first(path)
    if inside:
        return inside[0]
    if any((path / name).is_file() for name in _MODEL_CONFIGS):
        return path
    raise CheckpointError(f"{path} holds no checkpoint: name the folder that `feedmill train` wrote (its --out)")


def flush(path: Path) -> None:
    """Write a file's bytes, or a folder's names, to the disk before returning."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
