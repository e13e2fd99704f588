"""The coverage store: the only module that reads or writes DuckDB.

Stores sums of ledger entries and their offsets in one transaction, so a crash neither loses nor doubles a count.
Returns `Counts`, one consistent view per family. Only one thread may write; any thread may read.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from broker.retractions import RetractionBound
from schema.errors import CoverageError, CoverageOwnedError
from schema.family import CELL_AXIS, Family, cell_label
from schema.ledger_entries import COUNTS
from schema.retractions import KEY
from streams.coverage import retraction_tables
from streams.coverage.entries import Sums
from streams.coverage.owner import process_name
from streams.coverage.retraction_tables import RetractedCounts
from streams.coverage.tables import FOLD, SEED, STORE_VERSION, TABLES, cell_view

STORE_FILE = "coverage.duckdb"
REBUILD_HINT = "run `feedmill coverage rebuild` to fold the ledger again"
# DuckDB errors contain these texts when a disk, a quota or a file-size limit is used up.
_NO_SPACE = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

# The dashboard shows this many minutes at most.
_MINUTES_KEPT = 24 * 60
# Sums have some thousand rows, so one thread and little memory are enough; workers and page cache need the rest.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "threads": 1,
    "memory_limit": "512MB",
}


@dataclass(frozen=True)
class FoldAdvance:
    """A step in one ledger partition: the sums folded with it hold the entries of offsets [start, end)."""

    family: str
    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Counts:
    """All counts of one family at one moment.

    Attributes:
        totals: `entries` and the six row counts.
        reasons: {reason: rows}, most frequent first.
        bins: {axis: {bin: rows}}, cells under the axis `cell`; retracted rows do not count.
        minutes: (start in ms since the epoch, rows_in, rows_clean), oldest first, of the last day with entries.
        generated: (first, last) time of a raw record, ms since the epoch; None before the first.
        positions: {ledger partition: (first offset folded, next offset to fold)}.
        accounted: {raw partition: the offset below which every record is counted here}.
        missing: {raw partition: (first, next)}: records in [first, next) were refined but are not counted here, because
            the ledger has lost their entries.
        foreign: (ledger partition, records, last offset, last reason) of ledger records that are no entries.
        retracted: the rows of clean that are retracted.
    """

    totals: Mapping[str, int]
    reasons: Mapping[str, int]
    bins: Mapping[str, Mapping[str, int]]
    minutes: tuple[tuple[int, int, int], ...]
    generated: tuple[int, int] | None
    positions: Mapping[int, tuple[int, int]]
    accounted: Mapping[int, int] = field(default_factory=dict)
    foreign: tuple[tuple[int, int, int, str], ...] = ()
    missing: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    retracted: RetractedCounts = field(default_factory=RetractedCounts)

    @property
    def next_offsets(self) -> dict[int, int]:
        """{ledger partition: next offset to fold}."""
        return {partition: end for partition, (_, end) in self.positions.items()}


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    is_new = not path.exists()
    try:
        return duckdb.connect(path, config=_CONFIG)
    except duckdb.Error:
        if is_new:
            # A file that is half made can never be opened.
            path.unlink(missing_ok=True)
        raise


def _failure(what: str, error: duckdb.Error) -> CoverageError:
    line = " ".join(str(error).split())
    for reason in _NO_SPACE:
        if reason in line:
            return CoverageError(
                f"no space is left for the coverage store ({reason}): free some on the disk of data_dir; the counts "
                "that are stored stay right"
            )
    return CoverageError(f"{what} ({line[:300]}): {REBUILD_HINT}")


@contextmanager
def _own_errors() -> Iterator[None]:
    """Raise CoverageError in place of DuckDB's errors."""
    try:
        yield
    except duckdb.Error as error:
        raise _failure("the coverage store failed", error) from error


class CoverageStore:
    """The DuckDB file in `folder`; open it only with the owner's lock (`streams.coverage.owner`).

    Raises:
        CoverageError: the file is not a coverage store of this version, or another process has it open.
    """

    def __init__(self, folder: Path, families: Mapping[str, Family]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STORE_FILE
        try:
            # This connection runs no queries; each thread gets its own cursor from it.
            self._database = _connect(path)
            self._writer = self._database.cursor()
            self._writer.execute("SET lock_configuration = true")
            self._make_tables()
        except duckdb.Error as error:
            if "lock" in str(error) and (holder := re.search(r"\(PID (\d+)\)", str(error))):
                raise CoverageOwnedError(
                    f"{path} is open in process {process_name(int(holder[1]))}: wait for its end or stop it, then try "
                    "again"
                ) from None
            raise _failure(f"{path} cannot be opened", error) from error
        self._cursors = threading.Lock()
        self._seed(families)

    def close(self) -> None:
        """Write everything into the file and close it."""
        self._writer.close()
        self._database.close()

    def bind(self, family: str, topic: str, topic_id: str) -> None:
        """Store that `family` is folded from this topic.

        Raises:
            CoverageError: the family was folded from another topic. The topic was created again, or the cluster or
                namespace is another one.
        """
        with self._transaction() as cursor:
            row = cursor.execute("SELECT topic, topic_id FROM sources WHERE family = ?", [family]).fetchone()
            if row is None:
                cursor.execute("INSERT INTO sources VALUES (?, ?, ?)", [family, topic, topic_id])
            elif row != (topic, topic_id):
                raise CoverageError(
                    f"coverage of {family} was folded from topic {row[0]} (id {row[1]}), and {topic} (id {topic_id}) "
                    f"is another: {REBUILD_HINT}, or set namespace and data_dir back"
                )

    @_own_errors()
    def positions(self) -> dict[tuple[str, int], int]:
        """Return the next ledger offset to fold, by (family, partition)."""
        return {(family, partition): end for family, partition, _, end in self._positions(self._writer)}

    def begin(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Add ledger partitions {(family, partition): first offset}; known partitions keep their position."""
        with self._transaction() as cursor:
            known = {(family, partition) for family, partition, _, _ in self._positions(cursor)}
            for (family, partition), offset in starts.items():
                if (family, partition) not in known:
                    cursor.execute("INSERT INTO positions VALUES (?, ?, ?, ?)", [family, partition, offset, offset])

    @_own_errors()
    def fold(self, advances: list[FoldAdvance], added: Sums) -> None:
        """Add `added` and move the positions, in one transaction.

        Raises:
            CoverageError: a partition's position is not its `start`, so entries would be counted twice or missed; or
                DuckDB failed.
        """
        frames = {} if added.is_empty else {f"sum_{name}": frame for name, frame in vars(added).items()}
        # Frames are registered outside the transaction: DuckDB accepts no statement after a failed one.
        with self._registered(frames), self._transaction() as cursor:
            stored = {(family, partition): end for family, partition, _, end in self._positions(cursor)}
            for step in advances:
                at = stored.get((step.family, step.partition))
                if at != step.start:
                    raise CoverageError(
                        f"ledger partition {step.partition} of {step.family} is folded up to offset {at}, not to "
                        f"{step.start}: another process wrote the store; {REBUILD_HINT}"
                    )
                cursor.execute(
                    'UPDATE positions SET next_offset = ? WHERE family = ? AND "partition" = ?',
                    [step.end, step.family, step.partition],
                )
            if frames:
                cursor.execute(FOLD, [_MINUTES_KEPT])

    @_own_errors()
    def retraction_position(self, family: str) -> RetractionBound | None:
        """Return up to where the retractions of `family` are folded; None before the first fold."""
        return retraction_tables.position(self._writer, family)

    @_own_errors()
    def fold_retractions(
        self, family: str, start: RetractionBound | None, end: RetractionBound, entries: pl.DataFrame
    ) -> None:
        """Count the entries of the retractions from `start` to `end`, and move the position, in one transaction.

        An entry of a row that is stored already is not counted again.

        Raises:
            CoverageError: the position is not `start`, or DuckDB failed.
        """
        different = entries.drop_nulls(KEY).unique(KEY, keep="first", maintain_order=True)
        keys = different.select(*KEY).with_row_index("nth")
        with self._registered({"new_retractions": keys}), self._transaction() as cursor:
            nth = retraction_tables.unknown(cursor, family)
        frames = retraction_tables.fresh_frames(family, different[sorted(nth)])
        with self._registered(frames), self._transaction() as cursor:
            if (at := retraction_tables.position(cursor, family)) != start:
                raise CoverageError(
                    f"retractions of {family} are folded up to {at}, not to {start}: another process wrote the store; "
                    f"{REBUILD_HINT}"
                )
            retraction_tables.fold(cursor, family, end)

    def accounted(self, family: str) -> dict[int, tuple[int, int]]:
        """Return {raw partition: (first, next)}: the raw records whose entries are folded lie in [first, next)."""
        query = 'SELECT "partition", first_offset, next_offset FROM accounted WHERE family = ?'
        with self._transaction() as cursor:
            return {number: (first, end) for number, first, end in cursor.execute(query, [family]).fetchall()}

    def set_missing(self, family: str, missing: Mapping[int, tuple[int, int]]) -> None:
        """Store which raw records were refined but have no ledger entry: {raw partition: (first, next)}."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM missing WHERE family = ?", [family])
            for number, (first, end) in missing.items():
                cursor.execute("INSERT INTO missing VALUES (?, ?, ?, ?)", [family, number, first, end])

    @_own_errors()
    def counts(self, family: str) -> Counts:
        """Return all counts of `family` at one moment.

        Raises:
            CoverageError: the store has no such family.
        """
        with self._transaction(self._cursor()) as cursor:
            totals = cursor.execute(
                f"SELECT entries, {', '.join(COUNTS)}, epoch_ms(first_generated), epoch_ms(last_generated) "  # noqa: S608
                "FROM totals WHERE family = ?",
                [family],
            ).fetchone()
            if totals is None:
                raise CoverageError(f"the coverage store has no family {family!r}: {REBUILD_HINT}")
            bins: dict[str, dict[str, int]] = {}
            # A ledger that lost entries may count fewer rows than were retracted.
            query = 'SELECT axis, bin, greatest("rows" - retracted, 0) FROM coverage WHERE family = ?'
            for axis, bin_, rows in cursor.execute(query, [family]).fetchall():
                bins.setdefault(axis, {})[bin_] = rows
            query = 'SELECT reason, "rows" FROM reasons WHERE family = ? ORDER BY "rows" DESC, reason'
            reasons = dict(cursor.execute(query, [family]).fetchall())
            query = 'SELECT epoch_ms("minute"), rows_in, rows_clean FROM minutes WHERE family = ? ORDER BY "minute"'
            minutes = tuple(cursor.execute(query, [family]).fetchall())
            query = 'SELECT "partition", next_offset FROM accounted WHERE family = ?'
            accounted = dict(cursor.execute(query, [family]).fetchall())
            query = (
                'SELECT "partition", "records", last_offset, last_reason FROM foreign_records WHERE family = ? '
                'ORDER BY "partition"'
            )
            foreign = tuple(cursor.execute(query, [family]).fetchall())
            query = 'SELECT "partition", first_offset, next_offset FROM missing WHERE family = ? ORDER BY "partition"'
            missing = {number: (first, end) for number, first, end in cursor.execute(query, [family]).fetchall()}
            positions = {
                partition: (first, end) for name, partition, first, end in self._positions(cursor) if name == family
            }
            retracted = retraction_tables.counts(cursor, family)
        first, last = totals[-2:]
        return Counts(
            totals=dict(zip(("entries", *COUNTS), totals[:-2], strict=True)),
            reasons=reasons,
            bins=bins,
            minutes=minutes,
            generated=None if first is None else (first, last),
            positions=positions,
            accounted=accounted,
            foreign=foreign,
            missing=missing,
            retracted=retracted,
        )

    def _make_tables(self) -> None:
        cursor = self._writer
        cursor.begin()
        if not cursor.execute("SELECT 1 FROM duckdb_tables()").fetchall():
            cursor.execute(TABLES)
            cursor.execute(retraction_tables.TABLES)
            cursor.execute("INSERT INTO store VALUES (?)", [STORE_VERSION])
        version: Any = cursor.execute("SELECT version FROM store").fetchone()
        cursor.commit()
        if version != (STORE_VERSION,):
            self.close()
            raise CoverageError(
                f"the coverage store has version {version and version[0]}, not {STORE_VERSION}: {REBUILD_HINT}"
            )

    def _seed(self, families: Mapping[str, Family]) -> None:
        bins = [
            (family.name, axis, bin_)
            for family in families.values()
            for axis, names in (
                *((axis.name, axis.bins) for axis in family.axes),
                (CELL_AXIS, tuple(cell_label(cell) for cell in family.cells())),
            )
            for bin_ in names
        ]
        frames = {
            "seed_bins": pl.DataFrame(bins, schema=["family", "axis", "bin"], orient="row"),
            "seed_families": pl.DataFrame({"family": list(families)}, schema={"family": pl.String}),
        }
        with self._registered(frames), self._transaction() as cursor:
            cursor.execute(SEED)
            for family in families.values():
                if family.cell_view is not None:
                    cursor.execute(cell_view(family))

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._cursors:
            return self._database.cursor()

    @staticmethod
    def _positions(cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, int, int, int]]:
        query = 'SELECT family, "partition", first_offset, next_offset FROM positions ORDER BY family, "partition"'
        return cursor.execute(query).fetchall()

    @contextmanager
    def _registered(self, frames: Mapping[str, pl.DataFrame]) -> Iterator[None]:
        """Let the writer read `frames` as relations of these names."""
        for name, frame in frames.items():
            self._writer.register(name, frame.to_arrow())
        try:
            yield
        finally:
            # After a fatal error DuckDB refuses even this. Raise the first error, not this one.
            with suppress(duckdb.Error):
                for name in frames:
                    self._writer.unregister(name)

    @contextmanager
    def _transaction(self, reader: duckdb.DuckDBPyConnection | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Run one transaction of the writer, or of `reader`, which is closed afterwards."""
        cursor = self._writer if reader is None else reader
        try:
            with _own_errors():
                cursor.begin()
                try:
                    yield cursor
                except BaseException:
                    # Raise the first error, not one of the rollback.
                    with suppress(duckdb.Error):
                        cursor.rollback()
                    raise
                cursor.commit()
        finally:
            if reader is not None:
                reader.close()


def remove_store(folder: Path) -> None:
    """Delete the store's files so that it can be folded again; the caller holds the owner's lock."""
    for path in folder.glob(f"{STORE_FILE}*"):
        path.unlink()
