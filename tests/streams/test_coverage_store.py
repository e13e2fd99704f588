"""The DuckDB store: folding in any batching, all or nothing, and refusal of entries that do not follow."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema.errors import CoverageError, RecordError
from schema.ledger_entries import decode_entries
from schema.record import LEDGER, Envelope, encode
from schema.registry import FAMILIES
from streams.coverage.entries import sums
from streams.coverage.store import _CONFIG, STORE_FILE, Counts, CoverageStore, FoldAdvance, remove_store
from tests.rooms import room_for
from tests.streams.ledgers import CELLS, FAMILY, START, entry, folded, frame, random_entry

NAME = FAMILY.name
ORIGIN = {(NAME, 0): 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CoverageStore]:
    opened = CoverageStore(tmp_path, FAMILIES)
    opened.begin(ORIGIN)
    yield opened
    opened.close()


def fold(store: CoverageStore, entries: list[dict[str, Any]], start: int = 0) -> None:
    store.fold([FoldAdvance(NAME, 0, start, start + len(entries))], sums({NAME: frame(entries)}))


def seen(counts: Counts) -> dict[str, Any]:
    """Counts in the form of `folded`."""
    bins = {(axis, bin_): rows for axis, counted in counts.bins.items() for bin_, rows in counted.items() if rows}
    return {
        "totals": dict(counts.totals),
        "reasons": dict(counts.reasons),
        "bins": bins,
        "minutes": {start: rows for start, rows, _ in counts.minutes},
    }


def expected(entries: list[dict[str, Any]]) -> dict[str, Any]:
    plain = folded(entries)
    return {**plain, "minutes": {int(at.timestamp() * 1000): rows for at, rows in plain["minutes"].items()}}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_totals_are_the_fold_of_the_entries_in_any_batching_and_order(seed: int, sizes: list[int]) -> None:
    rng = random.Random(seed)
    entries = [random_entry(rng, n) for n in range(sum(sizes))]
    shuffled = rng.sample(entries, len(entries))
    with tempfile.TemporaryDirectory() as folder:
        store = CoverageStore(Path(folder), FAMILIES)
        store.begin(ORIGIN)
        at = 0
        for size in sizes:
            fold(store, shuffled[at : at + size], at)
            at += size
        counts = store.counts(NAME)
        store.close()
        assert seen(counts) == expected(entries)
        assert counts.next_offsets == {0: at}
        times = [int(one["source_time"].timestamp() * 1000) for one in entries]
        assert counts.generated == (min(times), max(times))
        again = CoverageStore(Path(folder), FAMILIES)
        assert again.counts(NAME) == counts
        again.close()


def test_entries_folded_twice_are_refused_and_change_nothing(store: CoverageStore) -> None:
    entries = [random_entry(random.Random(1), n) for n in range(3)]
    fold(store, entries)
    before = store.counts(NAME)
    with pytest.raises(CoverageError, match="coverage rebuild"):
        fold(store, entries)
    assert store.counts(NAME) == before


def test_entries_that_leave_some_out_are_refused(store: CoverageStore) -> None:
    with pytest.raises(CoverageError, match="folded up to offset 0, not to 5"):
        fold(store, [entry()], start=5)
    assert store.counts(NAME).next_offsets == {0: 0}


def test_a_fold_that_fails_half_way_leaves_counts_and_position_as_they_were(store: CoverageStore) -> None:
    fold(store, [entry(rows_in=5, rows_clean=5)])
    before = store.counts(NAME)
    # The totals go in before the reasons do, and a reason must have a name.
    poisoned = entry(rows_in=1, rows_rejected=1, reasons=[{"reason": None, "rows": 1}])
    with pytest.raises(CoverageError):
        fold(store, [poisoned], start=1)
    assert store.counts(NAME) == before
    fold(store, [entry(rows_in=2, rows_clean=2)], start=1)
    assert store.counts(NAME).totals["rows_in"] == 7


def test_every_declared_bin_and_cell_is_there_before_the_first_entry(store: CoverageStore) -> None:
    bins = store.counts(NAME).bins
    assert {name: tuple(found) for name, found in bins.items() if name != "cell"} == {
        axis.name: axis.bins for axis in FAMILY.axes
    }
    assert sorted(bins["cell"]) == sorted(CELLS)
    assert not any(rows for counted in bins.values() for rows in counted.values())


def test_a_bin_that_is_no_longer_declared_is_still_counted(store: CoverageStore) -> None:
    odd = {"axis": "size", "bin": "of old", "rows": 3}
    fold(store, [entry(coverage=[odd])])
    fold(store, [entry(coverage=[odd])], start=1)
    assert store.counts(NAME).bins["size"]["of old"] == 6


def test_minutes_older_than_a_day_are_deleted_in_any_order(store: CoverageStore) -> None:
    old, new = entry(rows_in=1, source_time=START), entry(rows_in=2, source_time=START.replace(day=6))
    fold(store, [new])
    fold(store, [old], start=1)
    assert [rows for _, rows, _ in store.counts(NAME).minutes] == [2]
    assert store.counts(NAME).totals["rows_in"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("kill_after_commit", "folded_in"), [(False, 20), (True, 21)])
def test_a_killed_process_leaves_counts_and_position_of_the_same_fold(
    tmp_path: Path, kill_after_commit: bool, folded_in: int
) -> None:
    script = f"""
import os, signal
from pathlib import Path
from schema.registry import FAMILIES
from streams.coverage.entries import sums
from streams.coverage.store import FoldAdvance, CoverageStore
from tests.streams.ledgers import entry, frame

class Dying:
    def __init__(self, writer):
        self.writer = writer
    def __getattr__(self, name):
        return getattr(self.writer, name)
    def commit(self):
        if {kill_after_commit}:
            self.writer.commit()
        os.kill(os.getpid(), signal.SIGKILL)

store = CoverageStore(Path({str(tmp_path)!r}), FAMILIES)
store.begin({{("reduction", 0): 0}})
for n in range(25):
    if n == 20:
        store._writer = Dying(store._writer)
    store.fold([FoldAdvance("reduction", 0, n, n + 1)], sums({{"reduction": frame([entry(rows_in=1, rows_clean=1)])}}))
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert killed.returncode == -9
    store = CoverageStore(tmp_path, FAMILIES)
    counts = store.counts(NAME)
    store.close()
    assert (counts.totals["rows_in"], counts.next_offsets) == (folded_in, {0: folded_in})


def test_sql_can_neither_read_files_nor_change_its_own_configuration(store: CoverageStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    cursor = store._cursor()
    attempts = (f"FROM '{secret}'", f"ATTACH '{tmp_path}/other.db'", f"COPY totals TO '{tmp_path}/out.csv'")
    for query in attempts:
        with pytest.raises(duckdb.Error, match=r"disabled|does not exist"):
            cursor.execute(query)
    with pytest.raises(duckdb.Error, match="locked"):
        cursor.execute("SET enable_external_access = true")
    cursor.close()
    assert not (tmp_path / "out.csv").exists()


def test_a_store_folded_from_another_topic_is_refused(store: CoverageStore) -> None:
    store.bind(NAME, "ns.reduction.ledger", "id-1")
    store.bind(NAME, "ns.reduction.ledger", "id-1")
    for topic, topic_id in (("ns.reduction.ledger", "id-2"), ("other.reduction.ledger", "id-1")):
        with pytest.raises(CoverageError, match="is another: run `feedmill coverage rebuild`"):
            store.bind(NAME, topic, topic_id)


def test_a_file_that_is_no_store_is_refused_with_the_next_command_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / STORE_FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(CoverageError, match="coverage rebuild"):
        CoverageStore(tmp_path, FAMILIES)
    remove_store(tmp_path)
    CoverageStore(tmp_path, FAMILIES).close()


@pytest.mark.parametrize("room", [0, 4_000, 12_000])
def test_a_disk_that_is_full_when_a_store_is_made_leaves_none(tmp_path: Path, room: int) -> None:
    with room_for(room), pytest.raises(CoverageError, match=r"no space is left .*: free some"):
        CoverageStore(tmp_path, FAMILIES)
    assert list(tmp_path.iterdir()) == []
    CoverageStore(tmp_path, FAMILIES).close()


def test_a_fold_that_finds_the_disk_full_goes_through_once_there_is_room(store: CoverageStore, tmp_path: Path) -> None:
    fold(store, [entry(0, rows_in=1)])
    with (
        room_for((tmp_path / f"{STORE_FILE}.wal").stat().st_size),
        pytest.raises(CoverageError, match="no space is left"),
    ):
        fold(store, [entry(1, rows_in=2)], start=1)
    assert store.counts(NAME).totals["rows_in"] == 1
    fold(store, [entry(1, rows_in=2)], start=1)
    assert store.counts(NAME).totals["rows_in"] == 3


def test_a_checkpoint_that_finds_the_disk_full_says_so_until_the_store_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_CONFIG, "checkpoint_threshold", "1KB")
    store = CoverageStore(tmp_path, FAMILIES)
    store.begin(ORIGIN)
    fold(store, [entry(0, rows_in=1)])
    ask = (lambda: fold(store, [entry(1)], start=1), store.positions, lambda: store.counts(NAME))
    with room_for(100_000):
        for question in ask:
            with pytest.raises(CoverageError, match="no space is left"):
                question()
    store.close()
    opened = CoverageStore(tmp_path, FAMILIES)
    # The fold that failed may be stored; then its position is stored with it.
    at = opened.positions()[NAME, 0]
    assert opened.counts(NAME).totals["entries"] == at
    fold(opened, [entry(at)], start=at)
    opened.close()


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    CoverageStore(tmp_path, FAMILIES).close()
    with duckdb.connect(tmp_path / STORE_FILE) as database:
        database.execute("UPDATE store SET version = 99")
    with pytest.raises(CoverageError, match="version 99"):
        CoverageStore(tmp_path, FAMILIES)


def test_parameter_coverage_shows_the_scenario_cells_by_parameter(tmp_path: Path) -> None:
    store = CoverageStore(tmp_path, FAMILIES)
    store.begin({("scenario", 0): 0})
    cell = {"axis": "cell", "bin": "low|authentic|baseline", "rows": 4}
    store.fold([FoldAdvance("scenario", 0, 0, 1)], sums({"scenario": frame([entry(coverage=[cell])])}))
    cursor = store._cursor()
    query = "SELECT * EXCLUDE (first_generated, last_generated), epoch_ms(last_generated) FROM parameter_coverage"
    rows = [row for row in cursor.execute(query).fetchall() if row[3]]
    cursor.close()
    store.close()
    assert rows == [("low", "authentic", "baseline", 4, int(START.timestamp() * 1000))]


def _headers(version: int = 1, stage: str = LEDGER) -> list[tuple[str, bytes]]:
    return Envelope(NAME, stage, version, run="r", chunk=0, part=0, rows=1).headers()


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"junk", _headers(), "garbage"),
        (None, _headers(), "empty_record"),
        (encode(frame([entry()])), [], "not_a_ledger_record"),
        (encode(frame([entry()])), _headers(version=7), "not_a_ledger_record"),
        (encode(frame([entry()])), _headers(stage="clean"), "not_a_ledger_record"),
        (encode(frame([entry(rows_clean=None)])), _headers(), "count_missing"),
        (encode(frame([entry()]).drop("rows_in")), _headers(), "count_missing"),
    ],
)
def test_records_that_are_no_ledger_records_are_refused(value: bytes, headers: list[Any], reason: str) -> None:
    with pytest.raises(RecordError) as failure:
        decode_entries(value, headers, NAME, max_rows=1000)
    assert failure.value.reason == reason


def test_a_ledger_record_decodes_to_the_entries_it_was_made_of() -> None:
    entries = frame(random_entry(random.Random(3), n) for n in range(5))
    assert decode_entries(encode(entries), _headers(), NAME, max_rows=1000).equals(entries)
