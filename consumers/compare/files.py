"""Files of examples, as `--out` and replays write them: JSON lines, Parquet or Arrow IPC, read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.compare.rows import ROWS_AT_ONCE, Rows, families_with, rows_of_lines
from consumers.replay.formats import ending
from schema.errors import RecordError, UsageError
from schema.family import Family
from schema.json_rows import document
from schema.record import conform
from schema.registry import FAMILIES

# A raw record has at most 8 MiB, and JSON's escapes can make its text six times as long.
LINE_MAX_BYTES = 48 * 1024 * 1024
# The lines of one call to the parser end after the line that reaches this size.
_LINES_BYTES = 16 * 1024 * 1024


class FileSource:
    """The rows of a file.

    Args:
        path: a .jsonl, .parquet or .arrow file.

    Raises:
        UsageError: the file has another ending.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ending = ending(path)

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def families(self) -> list[str]:
        """Return the families whose columns the file has; for JSON lines, the first line decides.

        Raises:
            UsageError: the file cannot be read.
        """
        with self._readable():
            if self._ending != ".jsonl":
                return families_with(self._schema().names)
            with self._path.open("rb") as stream:
                line = next(self._lines(stream), b"")
        try:
            first = document(line)
        except RecordError as error:
            raise UsageError(f"{self._path} does not begin with a JSON object: give a file of JSON lines") from error
        return [name for name in FAMILIES if name in families_with(FAMILIES[name].flatten(first))]

    def rows(self, family: Family) -> Iterator[Rows]:
        """Yield the rows, in order; unreadable lines are counted by reason.

        Raises:
            UsageError: the file cannot be read, or a column has a wrong type.
        """
        with self._readable():
            if self._ending == ".jsonl":
                with self._path.open("rb") as stream:
                    for lines in self._parts(stream):
                        yield rows_of_lines(lines, family)
            else:
                for batch in self._batches([name for name in self._schema().names if name in family.wire]):
                    yield Rows(conform(pa.Table.from_batches([batch]), family.wire))

    def _parts(self, stream: BinaryIO) -> Iterator[list[bytes]]:
        """Yield the lines in parts of limited rows and bytes."""
        part: list[bytes] = []
        size = 0
        for line in self._lines(stream):
            part.append(line)
            size += len(line)
            if len(part) == ROWS_AT_ONCE or size >= _LINES_BYTES:
                yield part
                part, size = [], 0
        if part:
            yield part

    def _lines(self, stream: BinaryIO) -> Iterator[bytes]:
        """Yield the lines that are not blank.

        Raises:
            UsageError: a line has over `LINE_MAX_BYTES` bytes.
        """
        number = 0
        while line := stream.readline(LINE_MAX_BYTES + 1):
            number += 1
            if len(line) > LINE_MAX_BYTES:
                raise UsageError(
                    f"{self._path} line {number} has over {LINE_MAX_BYTES:,} bytes, more than any example: "
                    "give a file of JSON lines"
                )
            if line.strip():
                yield line

    def _schema(self) -> pa.Schema:
        if self._ending == ".parquet":
            return pq.read_schema(self._path)
        with pa.ipc.open_file(pa.memory_map(str(self._path))) as reader:
            return reader.schema

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self._ending == ".parquet":
            with pq.ParquetFile(self._path) as file:
                yield from file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False)
            return
        with pa.ipc.open_file(pa.memory_map(str(self._path))) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate(full=True)
                for begin in range(0, batch.num_rows, ROWS_AT_ONCE):
                    yield batch.slice(begin, ROWS_AT_ONCE).select(columns)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, RecordError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise UsageError(f"{self._path} cannot be read ({reason}): give a complete file of examples") from error
