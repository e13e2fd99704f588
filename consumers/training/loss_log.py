"""The losses of a run, one line of JSON per step; a resume cuts the file back to its checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from schema.stale_files import in_making

NAME = "losses.jsonl"


class LossLog:
    """Appends to `losses.jsonl` until it is closed.

    Args:
        out: the run's folder.
        step: the checkpoint's step; lines of later steps are removed, because they come after the checkpoint.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / NAME
        kept = [line for line in read_losses(out) if line["step"] <= step]
        making = in_making(self._path, "part")
        try:
            making.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
            making.replace(self._path)
        finally:
            making.unlink(missing_ok=True)
        self.losses: list[float] = [line["loss"] for line in kept]
        self._stream = self._path.open("a", encoding="utf-8")

    def add(self, step: int, loss: float, **others: float) -> None:
        """Add a step; its line reaches the operating system at once, so `kill -9` loses no line."""
        self.losses.append(loss)
        self._stream.write(json.dumps({"step": step, "loss": loss, **others}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def to_disk(self) -> None:
        """Write all lines to the disk before returning."""
        os.fsync(self._stream.fileno())


def read_losses(out: Path) -> list[dict[str, Any]]:
    """Return the log's lines in a run's folder, or an empty list without a log; skip a last line that was cut off."""
    path = out / NAME
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
