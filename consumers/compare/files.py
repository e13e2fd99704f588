"""Files of examples, as `--out` and replays write them: JSON lines, Parquet or Arrow IPC, read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from consumers.compare.rows import ROWS_AT_ONCE, Rows, families_with, rows_of_lines
from consumers.replay.formats import ending
from schema.errors import RecordError, UsageError
from schema.family import Family
from schema.json_rows import document
from schema.record import conform
from schema.registry import FAMILIES


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
                line = next((line for line in stream if line.strip()), b"")
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
                    lines = (line for line in stream if line.strip())
                    while some := list(islice(lines, ROWS_AT_ONCE)):
                        yield rows_of_lines(some, family)
            else:
                for batch in self._batches([name for name in self._schema().names if name in family.wire]):
                    yield Rows(conform(pa.Table.from_batches([batch]), family.wire))

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
