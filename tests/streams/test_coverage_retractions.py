"""Coverage and audit after retractions: rows are counted out once, gaps open again, and nothing is a fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.clients import Connection
from broker.retractions import RetractionBound
from broker.topics import extents
from consumers.retraction.forget import forget
from schema.errors import CoverageError
from schema.record import REQUESTS, RETRACTIONS
from schema.reduction import FAMILY
from schema.registry import FAMILIES
from schema.retractions import COLUMNS, coverage_of
from streams.coverage import retraction_fold
from streams.coverage.client import open_coverage, rebuild
from streams.coverage.fold import LedgerFold
from streams.coverage.owner import coverage_folder
from streams.coverage.report import coverage_report
from streams.coverage.requests import RequestPublisher
from streams.coverage.store import CoverageStore
from streams.drain import drain
from tests import reductions
from tests.broker.recreation import create_again
from tests.consumers.records import envelope, send, topic
from tests.streams import refined
from tests.streams.refined import RefinedTopics, rows_of

NAME = FAMILY.name


@pytest.fixture
def topics(connection: Connection) -> Iterator[RefinedTopics]:
    written = RefinedTopics(connection)
    yield written
    written.close()


@pytest.fixture
def rows(topics: RefinedTopics) -> pl.DataFrame:
    """Refined rows of three records in two partitions."""
    first, second = rows_of(0, 60), rows_of(1, 30)
    topics.whole(first[:30])
    topics.whole(first[30:])
    topics.whole(second, 1)
    topics.settle()
    return pl.concat([first, second])


def report(connection: Connection) -> dict[str, Any]:
    with open_coverage(connection) as coverage:
        return coverage.report(NAME)


def counted(kept: pl.DataFrame) -> dict[tuple[str, str], int]:
    return {(each["axis"], each["bin"]): each["rows"] for each in refined.coverage_of(kept)}


def bins_of(found: dict[str, Any]) -> dict[tuple[str, str], int]:
    bins = {(axis, bin_): rows for axis, named in found["axes"].items() for bin_, rows in named.items() if rows}
    return bins | {("cell", label): rows for label, rows in found["cells"].items()}


def test_retracted_rows_leave_the_bins_and_cells_and_open_gaps_again(
    connection: Connection, rows: pl.DataFrame
) -> None:
    before = report(connection)
    assert before["rows_retracted"] == 0
    retracted = forget(connection, FAMILY, "size > 30", "asked out").rows_retracted
    for _ in range(2):
        after = report(connection)
        assert after["rows_retracted"] == retracted == rows.filter(pl.col("size") > 30).height
        assert after["retracted_by_reason"] == {"asked out": retracted}
        assert bins_of(after) == counted(rows.filter(pl.col("size") <= 30))
        assert after["cells_covered"] < before["cells_covered"]
        assert len(after["gaps_to_fill"]) > len(before["gaps_to_fill"])
        assert (after["rows_clean"], after["balanced"]) == (before["rows_clean"], True)
    rebuild(connection)
    assert report(connection) == after


def test_drain_and_audit_find_no_fault_in_retractions(
    connection: Connection, topics: RefinedTopics, rows: pl.DataFrame
) -> None:
    report(connection)
    retracted = forget(connection, FAMILY, "size > 30").rows_retracted
    # Audited with the stored counts of before and of after the fold.
    for _ in range(2):
        audited = topics.audited()
        assert (audited.ok, audited.coverage.compared) == (True, True), audited.first_fault
        assert audited.rows_retracted == retracted
        drain(connection, NAME, 60)
        assert report(connection)["rows_retracted"] == retracted


def test_retractions_are_folded_in_steps_and_other_records_are_passed_over(
    connection: Connection, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retraction_fold, "_OFFSETS_PER_FOLD", 1)
    send(connection, b"x", [], RETRACTIONS)
    forget(connection, FAMILY, "size > 60")
    forget(connection, FAMILY, "size > 30")
    send(connection, b"x", envelope(rows[:1], RETRACTIONS), RETRACTIONS)
    assert bins_of(report(connection)) == counted(rows.filter(pl.col("size") <= 30))


def test_a_retractions_topic_that_was_created_again_is_a_trouble_until_the_store_is_folded_again(
    connection: Connection, rows: pl.DataFrame
) -> None:
    forget(connection, FAMILY, "size > 30")
    report(connection)
    create_again(connection, topic(connection, RETRACTIONS), NAME)
    with pytest.raises(CoverageError, match="coverage rebuild"):
        report(connection)
    rebuild(connection)
    assert bins_of(report(connection)) == counted(rows)


def test_a_running_fold_sees_retractions_and_requests_the_rows_again(
    connection: Connection, rows: pl.DataFrame
) -> None:
    store = CoverageStore(coverage_folder(connection.settings), FAMILIES)
    fold = LedgerFold(connection, store, FAMILIES)
    publisher = RequestPublisher(connection, store, FAMILIES)
    stop = threading.Event()
    steps: list[int] = []

    def on_step(folded: int) -> None:
        steps.append(folded)
        if folded or publisher.due:
            publisher.publish()

    running = threading.Thread(target=fold.run, args=(stop, on_step))
    running.start()
    try:
        wait_until(lambda: store.counts(NAME).totals["rows_clean"] == rows.height)
        wait_until(lambda: steps[-1:] == [0])
        before = published(connection)
        retracted = forget(connection, FAMILY, "size > 30").rows_retracted
        wait_until(lambda: store.counts(NAME).retracted.rows == retracted)
        wait_until(lambda: published(connection) > before)
    finally:
        stop.set()
        running.join()
        publisher.close()
        fold.close()
        store.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def published(connection: Connection) -> int:
    return sum(extent.end for extent in extents(connection, topic(connection, REQUESTS)).values())


ROWS = reductions.valid(20)
ENTRIES = ROWS.select(
    "example_id",
    "augmented_from",
    "split",
    pl.lit(0, dtype=pl.Int32).alias("partition"),
    pl.int_range(20, dtype=pl.Int64).alias("offset"),
    coverage_of(ROWS, FAMILY),
    pl.lit("r").alias("reason"),
    pl.lit("true").alias("requested"),
    pl.lit(None, dtype=COLUMNS["time"]).alias("time"),
)


@given(folds=st.lists(st.lists(st.integers(0, 19), max_size=12), max_size=4))
@settings(max_examples=20)
def test_an_entry_that_is_folded_again_counts_once(
    tmp_path_factory: pytest.TempPathFactory, folds: list[list[int]]
) -> None:
    store = CoverageStore(tmp_path_factory.mktemp("store"), {NAME: FAMILY})
    at: RetractionBound | None = None
    for number, places in enumerate(folds, 1):
        end = RetractionBound("id", number)
        store.fold_retractions(NAME, at, end, ENTRIES[places])
        at = end
    different = sorted({place for places in folds for place in places})
    counts = store.counts(NAME).retracted
    assert counts.rows == len(different)
    bins = {(axis, bin_): rows for axis, named in counts.bins.items() for bin_, rows in named.items()}
    assert bins == counted(ROWS[different])
    assert coverage_report(FAMILY, store.counts(NAME))["cells_covered"] == 0
    with pytest.raises(CoverageError, match="another process"):
        store.fold_retractions(NAME, RetractionBound("id", 99), RetractionBound("id", 100), ENTRIES)
    store.close()


def test_a_failed_fold_stores_neither_rows_nor_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.coverage import retraction_tables

    store = CoverageStore(tmp_path, {NAME: FAMILY})
    broken = " ".join([retraction_tables._FOLD, "SELECT * FROM missing_table;"])
    monkeypatch.setattr(retraction_tables, "_FOLD", broken)
    with pytest.raises(CoverageError):
        store.fold_retractions(NAME, None, RetractionBound("id", 1), ENTRIES)
    assert store.retraction_position(NAME) is None
    assert store.counts(NAME).retracted.rows == 0
    monkeypatch.undo()
    store.fold_retractions(NAME, None, RetractionBound("id", 1), ENTRIES)
    assert store.counts(NAME).retracted.rows == 20
    store.close()
