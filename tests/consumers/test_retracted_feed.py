"""Feeds and manifests after retractions: rows are left out, and a saved state is not continued silently."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import delete_topics, ensure_topics
from consumers.batches import Batch
from consumers.feed import Feed, FeedOptions
from consumers.replay.training_run import replay_run
from consumers.retraction.forget import forget
from feedmill.cli import run
from schema.errors import FeedError, ReplayError
from schema.record import RETRACTIONS
from schema.reduction import FAMILY
from tests import reductions
from tests.consumers.records import topic, write

COUNT = 200
LARGE = pl.col("size") > 30
SHUFFLED: dict[str, Any] = {"batch_size": 8, "shuffle_seed": 3}


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    written = reductions.valid(COUNT)
    write(connection, written)
    return written


def feed(connection: Connection, split: str | None = None, **options: Any) -> Feed:
    given = FeedOptions(window_rows=64, block_rows=16, **options)
    return Feed(connection, "reduction", split=split, **SHUFFLED, options=given)


def ids(batches: Iterable[Batch]) -> list[int]:
    return [int(number, 16) for batch in batches for number in batch.hex_ids]


def retract(connection: Connection, rows: pl.DataFrame, reason: str = "asked out") -> None:
    forget(connection, FAMILY, f"example_id IN ({', '.join(map(str, rows['example_id']))})", reason)


def test_a_new_feed_leaves_retracted_rows_and_their_copies_out(connection: Connection, rows: pl.DataFrame) -> None:
    before = feed(connection)
    forget(connection, FAMILY, "size > 30")
    late = reductions.valid(2, first=800).with_columns(augmented_from=rows.filter(LARGE)["example_id"][0])
    write(connection, late)
    after = feed(connection)
    assert sorted(ids(after)) == sorted(rows.filter(~LARGE)["example_id"])
    # A feed keeps the retractions that it knew when it was made.
    assert sorted(ids(before)) == sorted(rows["example_id"])


def test_a_state_of_which_no_row_was_retracted_continues_as_it_was(connection: Connection, rows: pl.DataFrame) -> None:
    train = feed(connection, "train")
    whole = ids(train)
    begun = feed(connection, "train")
    first = ids(itertools.islice(begun, 5))
    state = json.loads(json.dumps(begun.state_dict()))
    retract(connection, rows.filter(pl.col("split") != "train").head(2))
    write(connection, later := reductions.valid(3, first=700))
    retract(connection, later)
    resumed = feed(connection, "train")
    resumed.load_state_dict(state)
    assert first + ids(resumed) == whole


def test_a_state_with_retracted_rows_is_refused_and_continues_without_them_on_request(
    connection: Connection, rows: pl.DataFrame
) -> None:
    whole = ids(feed(connection))
    begun = feed(connection)
    first = ids(itertools.islice(begun, 5))
    state = json.loads(json.dumps(begun.state_dict()))
    gone = rows.filter(pl.col("example_id").is_in(whole[10:200:20]))
    retract(connection, gone[:3])
    retract(connection, gone[3:], "licence withdrawn")
    with pytest.raises(FeedError, match=r"10 rows within .*7 licence withdrawn, 3 asked out.*--leave-out-retracted"):
        feed(connection).load_state_dict(state)

    resumed = feed(connection, leave_out_retracted=True)
    resumed.load_state_dict(state)
    left = [number for number in whole[len(first) :] if number not in set(gone["example_id"])]
    some = ids(itertools.islice(resumed, 4))
    # The state of the continued feed needs no request, until more rows are retracted.
    again = feed(connection)
    again.load_state_dict(json.loads(json.dumps(resumed.state_dict())))
    assert some + ids(again) == left
    retract(connection, rows.filter(pl.col("example_id").is_in(left[-1:])))
    with pytest.raises(FeedError, match="1 rows within"):
        feed(connection).load_state_dict(resumed.state_dict())


def test_the_next_pass_of_a_continued_feed_leaves_the_rows_out_too(connection: Connection, rows: pl.DataFrame) -> None:
    begun = feed(connection)
    next(iter(begun))
    forget(connection, FAMILY, "size > 30")
    resumed = feed(connection, leave_out_retracted=True)
    resumed.load_state_dict(begun.state_dict())
    list(resumed)
    assert sorted(ids(resumed)) == sorted(rows.filter(~LARGE)["example_id"])


def test_a_batch_with_too_few_rows_for_the_ranks_ends_a_continued_feed(
    connection: Connection, rows: pl.DataFrame
) -> None:
    begun = feed(connection)
    next(iter(begun))
    forget(connection, FAMILY, "true")
    resumed = feed(connection, leave_out_retracted=True)
    resumed.load_state_dict(begun.state_dict())
    with pytest.raises(FeedError, match="too few for 1 ranks"):
        list(resumed)


@pytest.mark.slow
def test_a_following_feed_reads_the_retractions_at_each_pass(connection: Connection, rows: pl.DataFrame) -> None:
    following = Feed(connection, "reduction", split=None, batch_size=8, mode="follow", options=FeedOptions(linger_s=0))
    batches = iter(following)
    first = ids(itertools.islice(batches, COUNT // 8))
    assert sorted(first) == sorted(rows["example_id"])
    forget(connection, FAMILY, "size > 30")
    copies = reductions.valid(40, first=600)
    origins = [*rows.filter(LARGE)["example_id"][:20], *rows.filter(~LARGE)["example_id"][:20]]
    copies = copies.with_columns(augmented_from=pl.Series(origins, dtype=pl.UInt64))
    write(connection, copies)
    taken: list[int] = []
    while len(taken) < 20:
        taken += ids(itertools.islice(batches, 1))
    assert sorted(taken) == sorted(copies["example_id"][20:])
    state = json.loads(json.dumps(following.state_dict()))
    resumed = Feed(connection, "reduction", split=None, batch_size=8, mode="follow")
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state


def test_a_state_is_refused_if_its_retractions_topic_was_created_again(
    connection: Connection, rows: pl.DataFrame
) -> None:
    state = feed(connection).state_dict()
    delete_topics(connection, [topic(connection, RETRACTIONS)])
    with pytest.raises(FeedError, match="deleted or created again"):
        feed(connection).load_state_dict(state)
    ensure_topics(connection, ["reduction"])
    with pytest.raises(FeedError, match="deleted or created again"):
        feed(connection).load_state_dict(state)


def replayed(connection: Connection, manifest: dict[str, Any], folder: Path, **options: Any) -> tuple[Any, list[int]]:
    report = replay_run(connection, manifest, folder / "x.parquet", **options)
    return report, pl.read_parquet(folder / "x.parquet")["example_id"].to_list()


def test_a_manifest_that_needs_retracted_rows_is_refused_and_written_without_them_on_request(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    forget(connection, FAMILY, "size > 60", "before")
    begun = feed(connection)
    seen = ids(itertools.islice(begun, 12))
    manifest = json.loads(json.dumps(begun.manifest()))
    report, written = replayed(connection, manifest, tmp_path)
    assert (written, report.rows_retracted) == (seen, 0)

    gone = rows.filter(pl.col("example_id").is_in(seen[5:8]))
    retract(connection, gone, "licence withdrawn")
    retract(connection, rows.filter(~pl.col("example_id").is_in(seen) & ~LARGE)[:2])
    with pytest.raises(ReplayError, match=r"saw 3 rows that were retracted since \(3 licence withdrawn\)"):
        replayed(connection, manifest, tmp_path / "refused")
    assert list((tmp_path / "refused").iterdir()) == []
    report, written = replayed(connection, manifest, tmp_path, leave_out_retracted=True)
    assert written == [number for number in seen if number not in set(gone["example_id"])]
    assert (report.rows_retracted, report.retracted_by_reason) == (3, {"licence withdrawn": 3})

    # The manifest of a run that went on without the rows has the same plan.
    resumed = feed(connection, leave_out_retracted=True)
    resumed.load_state_dict(begun.state_dict())
    further = ids(itertools.islice(resumed, 6))
    report, written = replayed(connection, resumed.manifest(), tmp_path, leave_out_retracted=True)
    assert written == [number for number in seen + further if number not in set(gone["example_id"])]


def test_the_command_line_names_the_flag_and_counts_the_rows(
    connection: Connection,
    rows: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    begun = feed(connection)
    seen = ids(itertools.islice(begun, 3))
    (tmp_path / "manifest.json").write_text(json.dumps(begun.manifest()))
    retract(connection, rows.filter(pl.col("example_id").is_in(seen[:1])))
    command = ["replay", "--manifest", str(tmp_path / "manifest.json"), "--out", str(tmp_path / "x.jsonl")]
    assert run(command) == 1
    assert "--leave-out-retracted" in capsys.readouterr().err
    assert run([*command, "--leave-out-retracted"]) == 0
    assert "1 rows of the run were retracted since and left out" in capsys.readouterr().err
