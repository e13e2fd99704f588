"""The folder of an iteration: what each round made, so that the same command goes on after `kill -9`.

::

    OUT/
        about.json           what the iteration was asked for; another request is refused
        prompts.jsonl        how the prompts were chosen, and the prompts
        round-0/             held-out.jsonl, held-out-judged.jsonl: of the model that the iteration begins with
        round-1/
            written.jsonl         what the earlier model wrote
            written-judged.jsonl  the verdict on each completion, and why it is not kept
            kept.jsonl            the kept ones, as documents
            sent.json             how many of them are on the clean topic
            model/, trained.json  the run that trains the next model, and its losses
            held-out.jsonl, held-out-judged.jsonl
        control-1/           the same without an expert's rows, from model/ on
        results.json         the figures of all rounds

A file is whole or absent: a step that was killed is done again. Documents that were sent twice are duplicates, which
the refine workers reject.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from schema.errors import UsageError
from schema.stale_files import in_making

ABOUT = "about.json"
# A kept document and a completion are far smaller.
_MOST_BYTES = 1 << 30


class RoundFiles:
    """The files of an iteration.

    Args:
        folder: the iteration's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def owned(self, about: Mapping[str, Any]) -> Iterator[None]:
        """Make the folder if absent, and keep other processes from it.

        Raises:
            UsageError: the folder cannot be used, another process uses it, or it holds an iteration with other
                settings, which are named.
        """
        lock = FileLock(self.folder / ".lock", blocking=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise UsageError(f"another iteration runs in {self.folder}: wait for it, or choose another --out") from None
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be used ({error.strerror}): choose another --out") from None
        try:
            known = self.once(ABOUT, lambda: about)
            changed = [name for name in {**known, **about} if known.get(name) != about.get(name)]
            if changed:
                raise UsageError(
                    f"{self.folder} holds an iteration with another {', '.join(changed)} "
                    f"({', '.join(json.dumps(known.get(name)) for name in changed)}): give the same, or choose another "
                    "--out"
                )
            yield
        finally:
            lock.release()

    def path(self, name: str) -> Path:
        """Return the path of a file or folder, whose parent folder exists."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def once(self, name: str, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the object of a JSON file; `make` makes it if it is absent."""
        [row] = self.rows_once(name, lambda: [make()])
        return row

    def rows_once(self, name: str, make: Callable[[], Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Return the objects of a file of JSON lines; `make` makes them if it is absent.

        Raises:
            UsageError: the file cannot be read, or is no such file.
        """
        path = self.path(name)
        if not path.exists():
            unfinished = in_making(path, "part")
            try:
                with unfinished.open("w", encoding="utf-8") as stream:
                    stream.writelines(f"{json.dumps(row)}\n" for row in make())
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no object")
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{path} cannot be read ({error}): remove it, and it is made again") from None
        return rows
