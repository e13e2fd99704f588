"""A replay of a feed's manifest writes exactly the rows that the feed gave, in the same order."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from broker.clients import Connection
from broker.topics import delete_topics, ensure_topics
from consumers.batches import Batch
from consumers.feed import Curriculum, Feed, FeedOptions, Source
from consumers.replay.training_run import RunProgress, read_manifest, replay_run
from feedmill.cli import run
from schema.errors import FeedError, ReplayError, UsageError
from schema.json_form import json_lines
from schema.reduction import FAMILY
from tests import reductions
from tests.consumers import ways
from tests.consumers.hostile import serialized_filters
from tests.consumers.records import forget_before, other_clean, topic, write, write_around_abort

COUNT = 400
WAYS: dict[str, dict[str, Any]] = ways.WAYS | {"mixed": {"batch_size": 10, "shuffle_seed": 8, "window_rows": 50}}


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    """Rows in clean, in two transactions, with an aborted transaction in between."""
    return write_around_abort(connection, COUNT, 150)


@pytest.fixture
def old(connection: Connection) -> Iterator[tuple[Source, pl.DataFrame]]:
    """A second clean topic as a source that repeats, and its rows."""
    namespace = f"{connection.settings.namespace}-old"
    with other_clean(connection, namespace, COUNT) as repeated:
        yield Source(namespace=namespace, weight=0.2, repeat=True), repeated


def feed(connection: Connection, way: dict[str, Any], split: str | None = None, **options: Any) -> Feed:
    given = dict(way)
    named = {name: given.pop(name) for name in ("batch_size", "shuffle_seed") if name in given}
    return Feed(connection, "reduction", split=split, **named, options=FeedOptions(**given, **options))


def ids(batches: Iterable[Batch]) -> list[str]:
    return [number for batch in batches for number in batch.hex_ids]


def manifest_of(run_feed: Feed) -> dict[str, Any]:
    """As a checkpoint keeps it."""
    read: dict[str, Any] = json.loads(json.dumps(run_feed.manifest()))
    return read


def replayed(connection: Connection, manifest: dict[str, Any], folder: Path) -> list[str]:
    out = folder / "rows.jsonl"
    report = replay_run(connection, manifest, out)
    example_ids = [json.loads(line)["example_id"] for line in out.read_text().splitlines()]
    assert report.rows == len(example_ids)
    return example_ids


@pytest.mark.parametrize("way", WAYS)
def test_a_manifest_replays_the_rows_of_a_run_in_the_same_order(
    connection: Connection, rows: pl.DataFrame, old: tuple[Source, pl.DataFrame], tmp_path: Path, way: str
) -> None:
    mixed = {"sources": (Source(weight=0.8), old[0])} if way == "mixed" else {}
    run_feed = feed(connection, WAYS[way], **mixed)
    seen = ids([*run_feed, *itertools.islice(run_feed, 5)])
    report = replay_run(connection, manifest_of(run_feed), tmp_path / "x.parquet")
    written = pl.read_parquet(tmp_path / "x.parquet")
    assert [f"{number:016x}" for number in written["example_id"]] == seen
    stored = pl.concat([rows, old[1]])
    assert written.equals(
        written.select("example_id").join(stored, on="example_id", maintain_order="left").select(rows.columns)
    )
    assert (report.rows, report.passes) == (len(seen), 2)
    assert set(report.offsets) == set(run_feed.topics)


@given(taken=st.integers(0, 60))
@hypothesis_settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_ends_with_the_last_batch_taken(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, taken: int
) -> None:
    run_feed = feed(connection, WAYS["shuffled"], split="train")
    endless = itertools.chain.from_iterable(run_feed for _ in itertools.count())
    seen = ids(itertools.islice(endless, taken))
    assert replayed(connection, manifest_of(run_feed), tmp_path) == seen


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "arrow"])
def test_every_format_holds_the_rows_and_gets_the_same_bytes_again(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, ending: str
) -> None:
    run_feed = feed(connection, WAYS["shuffled"])
    seen = ids(itertools.islice(run_feed, 7))
    out = tmp_path / f"x.{ending}"
    report = replay_run(connection, manifest_of(run_feed), out)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == report.sha256
    by_id = {f"{number:016x}": place for place, number in enumerate(rows["example_id"])}
    wanted = rows[[by_id[number] for number in seen]]
    if ending == "jsonl":
        assert out.read_bytes() == json_lines(wanted, FAMILY)
    else:
        assert (pl.read_parquet(out) if ending == "parquet" else pl.read_ipc(out)).equals(wanted)
    # Later rows are for other runs, and the manifest next to the file is enough to write the file again.
    write(connection, reductions.valid(40, first=COUNT))
    again = replay_run(connection, read_manifest(tmp_path / f"x.{ending}.manifest.json"), tmp_path / f"y.{ending}")
    assert (again.sha256, again.offsets, again.batches) == (report.sha256, report.offsets, 7)


def test_passes_that_were_broken_off_are_in_their_place(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    run_feed = feed(connection, WAYS["shuffled"])
    seen = ids(itertools.islice(run_feed, 3))
    run_feed.set_epoch(4)
    seen += ids(run_feed)
    seen += ids(itertools.islice(run_feed, 2))
    assert replayed(connection, manifest_of(run_feed), tmp_path) == seen


def test_ranks_and_a_resume_on_fewer_ranks_do_not_change_the_replay(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    ranks = [feed(connection, WAYS["shuffled"], rank=rank, world=2) for rank in range(2)]
    seen: list[str] = []
    for shares in itertools.islice(zip(*ranks, strict=True), 6):
        seen += [number for pair in zip(*(share.hex_ids for share in shares), strict=True) for number in pair]
    assert manifest_of(ranks[0]) == manifest_of(ranks[1])
    alone = feed(connection, WAYS["shuffled"])
    alone.load_state_dict(ranks[1].state_dict())
    seen += ids(itertools.islice(alone, 4))
    assert replayed(connection, manifest_of(alone), tmp_path) == seen


@pytest.mark.parametrize("window_rows", [64, 5])
def test_rows_that_a_run_dropped_are_not_in_its_replay(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, window_rows: int
) -> None:
    # Small phases end with fewer rows than a batch needs; the first phase cannot give any row.
    curriculum = Curriculum(column="size", edges=(4, 6, 9, 30))
    options = {"curriculum": curriculum, "window_rows": window_rows, "least_rows": 16}
    run_feed = feed(connection, {**WAYS["shuffled"], **options})
    seen = ids([*run_feed, *itertools.islice(run_feed, 3)])
    assert len(ids(feed(connection, {**WAYS["shuffled"], **options}))) < COUNT
    assert replayed(connection, manifest_of(run_feed), tmp_path) == seen


def test_progress_only_grows(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    run_feed = feed(connection, WAYS["shuffled"])
    ids([*run_feed, *itertools.islice(run_feed, 9)])
    reported: list[RunProgress] = []
    replay_run(connection, manifest_of(run_feed), tmp_path / "x.jsonl", on_progress=reported.append)
    done = [progress.passes_done for progress in reported]
    assert done == sorted(done)
    assert 0 <= done[0] < done[-1] == 2
    assert {progress.passes_total for progress in reported} == {2}


def test_a_feed_that_gave_nothing_replays_to_an_empty_file(connection: Connection, tmp_path: Path) -> None:
    ensure_topics(connection, ["reduction"])
    run_feed = feed(connection, WAYS["shuffled"])
    assert replay_run(connection, manifest_of(run_feed), tmp_path / "x.parquet").rows == 0
    assert pl.read_parquet(tmp_path / "x.parquet").equals(pl.DataFrame(schema=FAMILY.wire))


def test_offsets_that_retention_removed_are_an_error_and_leave_an_earlier_file_alone(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    run_feed = feed(connection, WAYS["shuffled"])
    ids(run_feed)
    forget_before(connection, 2, partitions=[1])
    (tmp_path / "x.jsonl").write_text("earlier")
    with pytest.raises(ReplayError, match=r"/1: offset 0 was asked for, but the topic holds 2 to \d+: retention"):
        replay_run(connection, manifest_of(run_feed), tmp_path / "x.jsonl")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.jsonl", "earlier")]


def test_a_topic_created_again_is_refused(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    run_feed = feed(connection, WAYS["plain"])
    manifest = manifest_of(run_feed)
    delete_topics(connection, [topic(connection)])
    write(connection, rows)
    with pytest.raises(ReplayError, match="was created again since the run read it"):
        replay_run(connection, manifest, tmp_path / "x.jsonl")


def test_a_manifest_with_too_many_batches_is_refused(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    run_feed = feed(connection, WAYS["plain"])
    ids(itertools.islice(run_feed, 2))
    manifest = manifest_of(run_feed)
    manifest["cursor"]["batches"] = 999
    with pytest.raises(ReplayError, match="999 batches in pass 0, but its offsets hold 25"):
        replay_run(connection, manifest, tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_feed_that_follows_cannot_be_replayed(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    state = Feed(connection, "reduction", split=None, mode="follow").state_dict()
    with pytest.raises(ReplayError, match=r"a feed in follow mode, .* with --from and --to"):
        replay_run(connection, state, tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("text", "error", "line"),
    [
        (None, UsageError, "cannot be read"),
        ("not json", ReplayError, "cannot be read as JSON"),
        ("[1]", ReplayError, "is not the manifest of a run"),
        ('{"version": 1}', ReplayError, "is not the manifest of a run"),
        ('{"version": 999}', ReplayError, "has version 999"),
        ('{"version": 1, "spec": {"family": "nothing"}}', ReplayError, "is not the manifest of a run"),
    ],
)
def test_an_invalid_manifest_is_refused(
    connection: Connection, tmp_path: Path, text: str | None, error: type[Exception], line: str
) -> None:
    path = tmp_path / "manifest.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=line):
        replay_run(connection, read_manifest(path), tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()


@pytest.fixture
def saved(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[str]]:
    """A file with a run's manifest, and the ids that the run saw; commands use the test's settings."""
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    run_feed = feed(connection, WAYS["shuffled"])
    seen = ids(itertools.islice(run_feed, 6))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(run_feed.manifest()))
    return path, seen


def test_the_command_prints_one_object(
    saved: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, seen = saved
    out = tmp_path / "x.parquet"
    assert run(["replay", "--manifest", str(path), "--out", str(out), "--json"]) == 0
    stdout, aside = capfd.readouterr()
    report = json.loads(stdout)
    assert [f"{number:016x}" for number in pl.read_parquet(out)["example_id"]] == seen
    assert (report["rows"], report["batches"], report["family"]) == (len(seen), 6, "reduction")
    assert report["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert all(begin == 0 < end for offsets in report["offsets"].values() for begin, end in offsets.values())
    assert aside == ""


def test_the_command_prints_the_path_of_the_file(
    saved: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.jsonl"
    assert run(["replay", "reduction", "--manifest", str(saved[0]), "--out", str(out)]) == 0
    stdout, aside = capfd.readouterr()
    assert stdout == ""
    assert f"{len(saved[1])} rows -> {out}" in aside


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--from", "1", "--where", "size > 3"],
            "--manifest already fixes the rows to replay: leave out --from and --where",
        ),
        (["--stage", "clean"], "leave out --stage"),
        (["--to", "2"], "leave out --to"),
    ],
)
def test_options_that_a_manifest_decides_are_refused(
    saved: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    out = tmp_path / "x.jsonl"
    assert run(["replay", "--manifest", str(saved[0]), "--out", str(out), *arguments]) == 2
    stdout, aside = capfd.readouterr()
    assert line in aside
    assert (stdout, aside.count("\n"), out.exists()) == ("", 1, False)


def test_a_replay_of_nothing_is_wrong_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "--out", "x.jsonl"]) == 2
    assert "name a family, or a run's manifest with --manifest" in capfd.readouterr().err


def test_a_manifest_of_another_family_is_wrong_usage(
    connection: Connection, saved: tuple[Path, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="for family 'reduction', not 'scenario'"):
        replay_run(connection, read_manifest(saved[0]), tmp_path / "x.jsonl", family="scenario")


def test_a_run_is_replayed_without_torch() -> None:
    program = "import sys, consumers.replay.training_run, feedmill.replay_commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("place", ["cast", "operand"])
def test_a_manifest_with_code_in_its_filter_is_refused_and_nothing_runs(
    saved: tuple[Path, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    path, out, touched = saved[0], tmp_path / "x.jsonl", tmp_path / "touched"
    manifest = json.loads(path.read_text())
    manifest["spec"]["where"] = serialized_filters(touched)[place]
    path.write_text(json.dumps(manifest))
    assert run(["replay", "--manifest", str(path), "--out", str(out)]) == 1
    stdout, aside = capfd.readouterr()
    assert not touched.exists()
    assert not out.exists()
    assert stdout == ""
    assert aside.count("\n") == 1
    assert "its filter is a serialized Polars expression" in aside


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"spec.where": "EXISTS (FROM read_text('/etc/hostname'))"}, "it contains a subquery, which is not allowed"),
        ({"spec.where": "getenv('HOME') <> ''"}, "the function getenv is not allowed in a filter"),
        ({"spec.where": "polars-sha256:" + "0" * 64}, "call `replay_run(..., where=EXPRESSION)` with the same one"),
        ({"spec.where": {"Column": "size"}}, "spec.where: Input should be a valid string"),
        ({"spec.curriculum": {"column": "^.*$", "edges": [3]}}, "the curriculum's column '^.*$' is not a numeric one"),
        ({"spec.split": "all"}, "the split 'all' is unknown"),
        ({"spec.window_rows": 0}, "a size is below 1"),
        ({"spec.batch_size": -1}, "a size is below 1"),
        ({"spec.batch_size": 10**30}, "is beyond 64 bits"),
        ({"spec.shuffle_seed": 2**64}, "is not a number of 64 bits"),
        ({"spec.block_rows": 0}, "a size is below 1"),
        ({"spec.sources": []}, "a wrong number of sources"),
        ({"cursor.epoch": -1}, "the cursor is outside the passes"),
        ({"cursor.phase": 7}, "the cursor is outside the passes"),
        ({"passes": [{"first": 3, "last": 2}]}, "a pass is below 0, or empty"),
    ],
)
def test_a_manifest_with_values_that_no_feed_writes_is_refused_in_one_line(
    saved: tuple[Path, list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, Any],
    line: str,
) -> None:
    path, out = saved[0], tmp_path / "x.jsonl"
    manifest = json.loads(path.read_text())
    for name, value in change.items():
        *way, last = name.split(".")
        inner = manifest
        for step in way:
            inner = inner[step]
        inner[last] = value
    path.write_text(json.dumps(manifest))
    assert run(["replay", "--manifest", str(path), "--out", str(out)]) == 1
    aside = capfd.readouterr().err
    assert line in aside
    assert aside.count("\n") == 1
    assert not out.exists()


def test_a_run_filtered_by_an_expression_is_replayed_with_that_expression(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    where = (pl.col("size") % 2 == 0) & pl.col("term").str.contains("0")
    run_feed = feed(connection, {"batch_size": 8, "shuffle_seed": 2}, where=where)
    seen = ids(itertools.islice(run_feed, 5))
    manifest = manifest_of(run_feed)
    assert manifest["spec"]["where"].startswith("polars-sha256:")
    out = tmp_path / "x.jsonl"
    replay_run(connection, manifest, out, where=where)
    assert [json.loads(line)["example_id"] for line in out.read_text().splitlines()] == seen
    with pytest.raises(UsageError, match="the filter given is not the run's: its fingerprint is polars-sha256"):
        replay_run(connection, manifest, tmp_path / "y.jsonl", where=pl.col("size") > 3)
    # A program that passes the same expression is accepted; a program that passes another one is refused.
    resumed = feed(connection, {"batch_size": 8, "shuffle_seed": 2}, where=where)
    resumed.load_state_dict(manifest)
    assert seen + ids(resumed) == ids(feed(connection, {"batch_size": 8, "shuffle_seed": 2}, where=where))
    with pytest.raises(FeedError, match="saved with where"):
        feed(connection, {"batch_size": 8, "shuffle_seed": 2}, where=pl.col("size") > 3).load_state_dict(manifest)
