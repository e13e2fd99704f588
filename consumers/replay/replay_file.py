"""The file of a replay with its manifest: rows in the format that the file's ending names, and a report as JSON.

The manifest of `rows.jsonl` is `rows.jsonl.manifest.json`. It has the report's values, with file names for paths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import polars as pl

from consumers.replay.formats import ending, open_writer
from consumers.replay.row_groups import RowGroups
from consumers.replay.sequence_rows import SequenceRows
from consumers.replay.whole_file import WholeFile, whole_file
from consumers.row_filter import RowFilter
from schema.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Written(TypedDict):
    """What every report of a replay says about its file; `created` is the time of writing, ISO 8601 in UTC."""

    sha256: str
    path: str
    manifest: str
    created: str
    feedmill: str


def check_out(out: Path) -> None:
    """Check that a replay can be written to `out`.

    Raises:
        UsageError: no format has that ending, or `out` is a folder.
    """
    ending(out)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file")


class ReplayFile:
    """A replay being written: give the rows to `rows`, then `finish` the file and `place` it with its report."""

    def __init__(self, out: Path, manifest: Path, file: WholeFile, rows: RowGroups, opened: ExitStack) -> None:
        self._out, self._manifest = out, manifest
        self._file, self._opened = file, opened
        self.rows = rows

    def finish(self) -> Written:
        """Write the gathered rows and the format's ending, and return the facts about the file."""
        self.rows.flush()
        self._opened.close()
        return Written(
            sha256=self._file.close(),
            path=str(self._out),
            manifest=str(self._manifest),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            feedmill=version("feedmill"),
        )

    def place(self, report: DataclassInstance) -> None:
        """Move the file and its manifest into place; `report` has the fields of `Written`."""
        names = {"path": self._out.name, "manifest": self._manifest.name}
        self._file.place(json.dumps(asdict(report) | names, indent=2) + "\n")


@contextmanager
def replay_file(
    out: Path,
    columns: Mapping[str, pl.DataType],
    lines: Callable[[pl.DataFrame], bytes],
    row_filter: RowFilter | None = None,
    sequences: SequenceRows | None = None,
) -> Iterator[ReplayFile]:
    """Give a `ReplayFile`; without `place` it leaves no file.

    Args:
        out: ends in .jsonl, .parquet or .arrow; an existing file is replaced.
        columns: the columns of the rows.
        lines: returns a frame's rows as JSON lines.
        row_filter: keeps some rows; None keeps all.
        sequences: writes the sequences of the rows; `lines` then gets frames of sequences.

    Raises:
        ReplayError: the file cannot be written.
    """
    manifest = out.with_name(f"{out.name}.manifest.json")
    with whole_file(out, manifest) as file, ExitStack() as opened:
        written = columns if sequences is None else sequences.columns
        writer = opened.enter_context(closing(open_writer(out, file.stream, written, lines)))
        yield ReplayFile(out, manifest, file, RowGroups(writer, columns, row_filter, sequences), opened)
