"""Retractions on a real Kafka: which rows `forget` takes, and that replays leave them out."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from broker.retractions import retracted_ids, retraction_bound, retraction_entries
from broker.topics import delete_topics, extents, undecided
from consumers.compare.sources import source_named
from consumers.replay.topic_range import replay
from consumers.retraction.forget import ForgetReport, forget
from schema.errors import ReplayError, UsageError
from schema.record import REJECTED, RETRACTIONS
from schema.reduction import FAMILY
from tests import reductions
from tests.broker.recreation import create_again
from tests.consumers.records import envelope, send, topic, write

LARGE = "size > 30"


def with_copies(connection: Connection) -> pl.DataFrame:
    """Write 120 rows to clean, and return them; 20 of them were augmented from the row 100 places before them."""
    rows = reductions.valid(120)
    origins = pl.concat([pl.Series([None] * 100, dtype=pl.UInt64), rows["example_id"][:20]])
    rows = rows.with_columns(augmented_from=origins)
    write(connection, rows)
    return rows


def entries(connection: Connection) -> pl.DataFrame:
    bound = retraction_bound(connection, topic(connection, RETRACTIONS))
    assert bound is not None
    return retraction_entries(connection, topic(connection, RETRACTIONS), bound, ReplayError)


def replayed(connection: Connection, folder: Path) -> set[int]:
    replay(connection, "reduction", folder / "x.parquet")
    return set(pl.read_parquet(folder / "x.parquet")["example_id"])


def test_forget_takes_the_rows_of_the_filter_and_the_copies_of_these_rows(
    connection: Connection, tmp_path: Path
) -> None:
    rows = with_copies(connection)
    dry = forget(connection, FAMILY, "step_k = 0 AND size < 20", dry_run=True)
    assert replayed(connection, tmp_path) == set(rows["example_id"])
    report = forget(connection, FAMILY, "step_k = 0 AND size < 20", "licence withdrawn")
    assert dry == ForgetReport(**{**vars(report), "dry_run": True, "reason": dry.reason})
    small = rows.filter(pl.col("size") < 20)
    copies = rows.filter(pl.col("augmented_from").is_in(small["example_id"].implode()) & (pl.col("size") >= 20))
    assert copies.height
    assert (report.rows_found, report.rows_of_origins) == (small.height, copies.height)
    gone = set(small["example_id"]) | set(copies["example_id"])
    assert replayed(connection, tmp_path) == set(rows["example_id"]) - gone
    written = entries(connection)
    assert set(written["example_id"]) == gone
    assert set(written["reason"]) == {"licence withdrawn"}
    assert set(written["requested"]) == {"step_k = 0 AND size < 20"}
    read = written.join(rows, on="example_id", maintain_order="left")
    assert read["split"].equals(read["split_right"])


def test_a_comparison_leaves_retracted_rows_out(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    rows = with_copies(connection)
    forget(connection, FAMILY, f"example_id = {rows['example_id'][0]}")
    source = source_named(f"topic:{topic(connection)}", lambda: connection)
    compared = pl.concat(part.frame for part in source.rows(FAMILY))
    assert set(compared["example_id"]) == set(rows["example_id"]) - {rows["example_id"][0], rows["example_id"][100]}
    assert "rows of" in caplog.text
    assert "that are retracted are left out" in caplog.text


def test_a_row_is_retracted_once_and_later_copies_by_the_next_run(connection: Connection) -> None:
    rows = with_copies(connection)
    first = forget(connection, FAMILY, LARGE)
    again = forget(connection, FAMILY, LARGE)
    assert again.rows_retracted == 0
    assert again.rows_retracted_before == first.rows_retracted == again.rows_found + again.rows_of_origins
    late = reductions.valid(1, first=500).with_columns(augmented_from=rows.filter(pl.col("size") > 30)["example_id"][0])
    write(connection, late)
    report = forget(connection, FAMILY, "false")
    assert (report.rows_found, report.rows_retracted) == (0, 1)
    assert late["example_id"][0] in entries(connection)["example_id"]
    assert entries(connection)["example_id"].is_unique().all()


def test_replays_of_rejected_rows_leave_retracted_rows_out(connection: Connection, tmp_path: Path) -> None:
    rows = reductions.valid(40)
    write(connection, rows)
    write(connection, rows.with_columns(reasons=pl.lit(["duplicate"])), stage=REJECTED)
    forget(connection, FAMILY, LARGE)
    report = replay(connection, "reduction", tmp_path / "x.jsonl", stage=REJECTED)
    assert report.rows_retracted == rows.filter(pl.col("size") > 30).height == 40 - report.rows


def test_the_manifest_of_a_replay_has_the_bound_and_the_count(connection: Connection, tmp_path: Path) -> None:
    write(connection, reductions.valid(40))
    before = replay(connection, "reduction", tmp_path / "x.jsonl")
    assert before.rows_retracted == 0
    retracted = forget(connection, FAMILY, LARGE).rows_retracted
    report = replay(connection, "reduction", tmp_path / "x.jsonl", where="size < 10")
    manifest = json.loads((tmp_path / "x.jsonl.manifest.json").read_text())
    name = topic(connection, RETRACTIONS)
    assert manifest["retractions"]["end"] == extents(connection, name)[0].end
    assert report.rows_retracted == manifest["rows_retracted"] == retracted
    same = replay(connection, "reduction", tmp_path / "y.jsonl", where="size < 10")
    assert same.sha256 == report.sha256


def test_an_installation_without_a_retractions_topic_has_no_retractions(connection: Connection, tmp_path: Path) -> None:
    rows = reductions.valid(20)
    write(connection, rows)
    delete_topics(connection, [topic(connection, RETRACTIONS)])
    assert retraction_bound(connection, topic(connection, RETRACTIONS)) is None
    assert replayed(connection, tmp_path) == set(rows["example_id"])
    assert forget(connection, FAMILY, "true").rows_retracted == 20


def test_a_foreign_record_among_the_retractions_is_passed_over(
    connection: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = reductions.valid(20)
    write(connection, rows)
    send(connection, b"not Feedmill's", [], RETRACTIONS)
    assert replayed(connection, tmp_path) == set(rows["example_id"])
    assert f"{topic(connection, RETRACTIONS)}/0 offset 0 is no record of Feedmill's" in caplog.text


def test_an_undecodable_record_of_retractions_is_an_error(connection: Connection, tmp_path: Path) -> None:
    write(connection, reductions.valid(20))
    send(connection, b"x", envelope(reductions.valid(1), RETRACTIONS), RETRACTIONS)
    with pytest.raises(ReplayError, match="retractions/0 offset 0 cannot be decoded"):
        replayed(connection, tmp_path)


def test_a_retractions_topic_that_was_created_again_is_an_error(connection: Connection) -> None:
    write(connection, reductions.valid(4))
    forget(connection, FAMILY, "true")
    name = topic(connection, RETRACTIONS)
    bound = retraction_bound(connection, name)
    create_again(connection, name)
    with pytest.raises(ReplayError, match="was created again"):
        retracted_ids(connection, name, bound, ReplayError)


@pytest.mark.parametrize(
    ("where", "reason", "line"),
    [("size >", "r", "cannot be used"), ("poems = 1", "r", "no column poems"), ("true", "", "0 characters")],
)
def test_an_invalid_filter_or_reason_is_refused(connection: Connection, where: str, reason: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        forget(connection, FAMILY, where, reason)


# Sends one record of retractions, says so, and waits to be killed before the commit.
HALF_WAY = """
import sys, time
from consumers.retraction import forget
from broker.clients import connect
from schema.reduction import FAMILY
from schema.settings import load_settings

real = forget.to_table

def stop_after_two(frame, calls=[]):
    calls.append(1)
    if len(calls) > 2:
        time.sleep(1)
        print("half-way", flush=True)
        time.sleep(100)
    return real(frame)

forget.to_table = stop_after_two
forget.forget(connect(load_settings()), FAMILY, "size > 30")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_half_way_and_run_again_is_exact(connection: Connection, tmp_path: Path) -> None:
    rows = reductions.valid(100)
    write(connection, rows)
    settings = connection.settings.model_copy(update={"rows_per_record": 10})
    environment = settings.environment(connection.servers)
    killed = subprocess.Popen([sys.executable, "-c", HALF_WAY], stdout=subprocess.PIPE, env=environment)
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"half-way\n"
    killed.kill()
    killed.wait()
    killed.stdout.close()
    # The open transaction hides nothing that was committed, and what it wrote is not visible.
    assert undecided(connection, topic(connection, RETRACTIONS))
    assert replayed(connection, tmp_path) == set(rows["example_id"])
    began = time.monotonic()
    report = forget(connection, FAMILY, LARGE)
    assert time.monotonic() - began < 20
    gone = set(rows.filter(pl.col("size") > 30)["example_id"])
    assert (report.rows_retracted, report.rows_retracted_before) == (len(gone), 0)
    assert sorted(entries(connection)["example_id"]) == sorted(gone)
    assert replayed(connection, tmp_path) == set(rows["example_id"]) - gone
