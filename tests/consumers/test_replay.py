from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import ensure_topics, extents, topic_name
from consumers.replay import row_groups
from consumers.replay.bounds import parse_bound
from consumers.replay.topic_range import ReplayProgress, replay
from schema import ledger
from schema.errors import BrokerError, ReplayError, UnknownFamilyError, UsageError
from schema.json_form import json_lines
from schema.record import LEDGER, REJECTED, Envelope, encode
from schema.reduction import FAMILY
from tests import reductions
from tests.consumers.records import envelope, forget_before, send, topic, write, write_around_abort

COUNT = 300
ENDINGS = ("jsonl", "parquet", "arrow")
MOMENT = datetime(2021, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def rows(connection: Connection) -> pl.DataFrame:
    """Rows in clean in the order of a replay: by partition, offset and row; with an aborted transaction in between."""
    every = write_around_abort(connection, COUNT, 200)
    return pl.concat(
        part.filter(pl.col("example_id") % 4 == number) for number in range(4) for part in (every[:200], every[200:])
    )


def read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)


def documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_columnar_files_hold_the_rows_as_they_are(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, ending: str
) -> None:
    report = replay(connection, "reduction", tmp_path / f"x.{ending}")
    assert report.rows == COUNT
    assert read(tmp_path / f"x.{ending}").equals(rows)
    assert read(tmp_path / f"x.{ending}").schema == rows.schema


def test_json_lines_equal_those_of_a_producer(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    replay(connection, "reduction", tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_bytes() == json_lines(rows, FAMILY)
    first, row = documents(tmp_path / "x.jsonl")[0], rows.row(0, named=True)
    assert first["example_id"] == f"{row['example_id']:016x}"
    assert first["target_span"] == [row["span_start"], row["span_end"]]
    assert first["meta"]["size"] == row["size"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("where", [None, "size > 20"])
def test_the_same_offsets_give_the_same_bytes(
    connection: Connection,
    rows: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    where: str | None,
) -> None:
    monkeypatch.setattr(row_groups, "_GROUP_ROWS", 64)
    first = replay(connection, "reduction", tmp_path / f"a.{ending}", where=where)
    write(connection, reductions.valid(20, first=COUNT))
    ends = {number: bounds[1] for number, bounds in first.offsets.items()}
    again = replay(connection, "reduction", tmp_path / f"b.{ending}", where=where, end=max(ends.values()))
    if again.offsets == first.offsets:
        assert again.sha256 == first.sha256
    third = replay(connection, "reduction", tmp_path / f"c.{ending}", where=where, end=max(ends.values()))
    assert (third.sha256, third.offsets, third.rows) == (again.sha256, again.offsets, again.rows)
    assert hashlib.sha256((tmp_path / f"c.{ending}").read_bytes()).hexdigest() == third.sha256


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_sizes_of_reads_do_not_change_the_file(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    whole = replay(connection, "reduction", tmp_path / f"a.{ending}", where="size % 3 = 1")
    monkeypatch.setattr(row_groups, "_GROUP_BYTES", 1)
    assert replay(connection, "reduction", tmp_path / f"b.{ending}", where="size % 3 = 1").sha256 == whole.sha256


def test_a_long_topic_is_written_in_row_groups(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(row_groups, "_GROUP_ROWS", 64)
    reported: list[ReplayProgress] = []
    replay(connection, "reduction", tmp_path / "x.parquet", on_progress=reported.append)
    groups = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(groups.num_row_groups)] == [64, 64, 64, 64, 44]
    assert [progress.offsets_done for progress in reported] == sorted(progress.offsets_done for progress in reported)
    assert 0 < reported[-1].offsets_done <= reported[-1].offsets_total
    assert read(tmp_path / "x.parquet").equals(rows)


def test_a_filter_chooses_rows(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    report = replay(connection, "reduction", tmp_path / "x.parquet", where="size > 30 AND split = 'train'")
    chosen = rows.filter((pl.col("size") > 30) & (pl.col("split") == "train"))
    assert 0 < chosen.height < COUNT
    assert read(tmp_path / "x.parquet").equals(chosen)
    assert report.rows == chosen.height


def test_a_refused_filter_leaves_an_earlier_file_alone(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text("earlier")
    with pytest.raises(ReplayError, match="no column nothing; give one SQL condition over the columns term, step_k"):
        replay(connection, "reduction", tmp_path / "x.jsonl", where="nothing = 1")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("x.jsonl", "earlier")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_offsets_bound_every_partition(connection: Connection, rows: pl.DataFrame, tmp_path: Path, ending: str) -> None:
    everything = replay(connection, "reduction", tmp_path / "all.jsonl")
    report = replay(connection, "reduction", tmp_path / f"x.{ending}", start=1, end=2)
    assert report.offsets == {number: [1, 2] for number in range(4)}
    assert report.rows == 4 * 16
    assert replay(connection, "reduction", tmp_path / "y.jsonl", end=10**6).sha256 == everything.sha256
    assert replay(connection, "reduction", tmp_path / "z.jsonl", start=10**6).rows == 0


def test_times_select_records_by_their_time_of_writing(connection: Connection, tmp_path: Path) -> None:
    parts = [reductions.valid(40, first=40 * number) for number in range(3)]
    for number, part in enumerate(parts):
        at = MOMENT + timedelta(hours=number)
        write(connection, part, timestamp_ms=int(at.timestamp() * 1000))

    def chosen(start: str | None, end: str | None) -> set[int]:
        out = tmp_path / "x.parquet"
        replay(connection, "reduction", out, start=parse_bound(start), end=parse_bound(end))
        return set(read(out)["example_id"])

    _, second, third = (set(part["example_id"]) for part in parts)
    assert chosen("2021-05-01T13:00:00Z", None) == second | third
    assert chosen("2021-05-01T12:30:00", "2021-05-01T15:30:00+02:00") == second
    assert chosen(None, "2021-05-01") == set()
    assert chosen("2021-05-02", None) == set()
    assert chosen("1960-01-01", None) == chosen("0001-01-01", None) == chosen(None, None)
    assert chosen(None, "1969-12-31T23:59:59") == set()


@pytest.mark.parametrize(("text", "bound"), [("0", 0), ("12", 12), (None, None), ("2021-05-01T12:00:00Z", MOMENT)])
def test_digits_are_an_offset_and_the_rest_a_time(text: str | None, bound: object) -> None:
    assert parse_bound(text) == bound


@pytest.mark.parametrize("text", ["yesterday", "-1", "1.5", "", "٣"])
def test_neither_offset_nor_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="neither an offset nor a time"):
        parse_bound(text)


def test_an_end_before_the_start_is_wrong_usage(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="before its start"):
        replay(connection, "reduction", tmp_path / "x.jsonl", start=5, end=4)
    with pytest.raises(UsageError, match="before its start"):
        replay(connection, "reduction", tmp_path / "x.jsonl", start=MOMENT, end=MOMENT - timedelta(days=1))


def test_a_start_that_retention_removed_is_refused_with_both_offsets(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path
) -> None:
    forget_before(connection, 2, partitions=[1])
    with pytest.raises(ReplayError, match=r"/1: offset 0 was asked for, but the topic holds 2 to \d+: retention"):
        replay(connection, "reduction", tmp_path / "x.jsonl", start=0)
    assert list(tmp_path.glob("x*")) == []
    report = replay(connection, "reduction", tmp_path / "x.jsonl")
    assert report.offsets[1][0] == 2
    assert report.rows == COUNT - 2 * 16


def test_the_manifest_describes_the_file(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    report = replay(connection, "reduction", tmp_path / "new" / "x.jsonl", where="size > 0")
    saved = json.loads((tmp_path / "new" / "x.jsonl.manifest.json").read_text())
    assert saved["sha256"] == hashlib.sha256((tmp_path / "new" / "x.jsonl").read_bytes()).hexdigest() == report.sha256
    assert saved["rows"] == COUNT
    assert saved["topic"] == topic(connection)
    assert saved["offsets"] == {
        str(number): [extent.begin, extent.end] for number, extent in extents(connection, topic(connection)).items()
    }
    assert (saved["where"], saved["stage"], saved["path"]) == ("size > 0", "clean", "x.jsonl")
    assert datetime.now(UTC) - datetime.fromisoformat(saved["created"]) < timedelta(minutes=5)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["x.jsonl", "x.jsonl.manifest.json"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_topic_gives_a_valid_empty_file(connection: Connection, tmp_path: Path, ending: str) -> None:
    ensure_topics(connection, ["reduction"])
    report = replay(connection, "reduction", tmp_path / f"x.{ending}")
    assert report.rows == 0
    if ending == "jsonl":
        assert (tmp_path / "x.jsonl").read_bytes() == b""
    else:
        assert read(tmp_path / f"x.{ending}").equals(pl.DataFrame(schema=FAMILY.wire))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_damaged_record_leaves_no_file(
    connection: Connection, rows: pl.DataFrame, tmp_path: Path, ending: str
) -> None:
    frame = reductions.valid(3, first=COUNT)
    send(connection, encode(frame)[:-40], envelope(frame), partition=3)
    with pytest.raises(ReplayError, match=r"clean/3 offset \d+ cannot be decoded \(garbage"):
        replay(connection, "reduction", tmp_path / f"x.{ending}")
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("stage", ["clean", "rejected"])
def test_a_foreign_record_is_passed_over_and_named(
    connection: Connection, tmp_path: Path, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_topics(connection, ["reduction"])
    name = topic_name(connection.settings, FAMILY.name, stage)
    producer = connection.producer()
    for headers in ([], Envelope("scenario", stage, 1, run="r", chunk=0, part=0, rows=1).headers()):
        producer.send(name, b"not Feedmill's", partition=0, headers=headers).get(30)
    producer.close()
    write(connection, reductions.valid(20))
    report = replay(connection, "reduction", tmp_path / "x.jsonl", stage=stage)
    assert (report.rows, report.foreign_records) == (20 if stage == "clean" else 0, 2)
    assert [offset for offset in (0, 1) if f"{name}/0 offset {offset} is no record of Feedmill's" in caplog.text] == [
        0,
        1,
    ]


def rejected_rows() -> pl.DataFrame:
    return reductions.valid(40).with_columns(
        reasons=pl.when(pl.col("size") > 30).then(pl.lit(["duplicate", "depth_mismatch"])).otherwise(pl.lit(["other"])),
        source_offset=pl.int_range(pl.len()),
    )


def dead_letter(connection: Connection, value: bytes, partition: int) -> None:
    connect = {"topic": "ns.reduction.raw", "partition": "1", "offset": "7"}
    connect |= {"exception.class.name": "E", "exception.message": "garbage: not Arrow"}
    headers = [(f"__connect.errors.{name}", text.encode()) for name, text in connect.items()]
    # A dead letter keeps the type of the original record.
    original = envelope(reductions.valid(1), stage="raw")
    send(connection, value, [*original, *headers, ("feedmill-reason", b"garbage")], REJECTED, partition)


def test_rejected_rows_carry_their_reasons(connection: Connection, tmp_path: Path) -> None:
    rejected = rejected_rows()
    write(connection, rejected, stage=REJECTED)
    condition = "list_contains(reasons, 'duplicate')"
    replay(connection, "reduction", tmp_path / "x.parquet", stage=REJECTED, where=condition)
    replayed = read(tmp_path / "x.parquet").sort("source_offset")
    wanted = rejected.filter(pl.col("size") > 30)
    assert replayed.select(wanted.columns).equals(wanted)
    # These rows came from no file.
    assert replayed.select("source_file", "source_line").null_count().row(0) == (wanted.height, wanted.height)
    replay(connection, "reduction", tmp_path / "x.jsonl", stage=REJECTED)
    assert {tuple(row["reasons"]) for row in documents(tmp_path / "x.jsonl")} == {
        ("duplicate", "depth_mismatch"),
        ("other",),
    }


def test_dead_letters_are_lines_of_their_original_bytes(connection: Connection, tmp_path: Path) -> None:
    write(connection, rejected_rows(), stage=REJECTED)
    value = b"\x00\xff not arrow"
    dead_letter(connection, value, partition=0)
    write(connection, reductions.valid(8, first=99).with_columns(reasons=pl.lit(["last"])), stage=REJECTED)
    report = replay(connection, "reduction", tmp_path / "x.jsonl", stage=REJECTED)
    lines = documents(tmp_path / "x.jsonl")
    (letter,) = [line for line in lines if "value_base64" in line]
    assert base64.b64decode(letter["value_base64"]) == value
    assert letter["reasons"] == ["garbage"]
    assert letter["source"] == "ns.reduction.raw/1/7"
    assert letter["message"] == "garbage: not Arrow"
    assert (report.rows, report.dead_letters, report.dead_letters_left_out) == (len(lines), 1, 0) == (49, 1, 0)
    # At its place: after the earlier records of its partition, and before the later ones.
    reasons = [line["reasons"] for line in lines]
    at = reasons.index(["garbage"])
    assert ["last"] not in reasons[:at]
    assert reasons[at + 1] == ["last"]


@pytest.mark.parametrize(("ending", "where"), [("parquet", None), ("arrow", None), ("jsonl", "size > 0")])
def test_dead_letters_that_are_left_out_are_counted(
    connection: Connection, tmp_path: Path, ending: str, where: str | None
) -> None:
    write(connection, rejected_rows(), stage=REJECTED)
    dead_letter(connection, b"?", partition=2)
    report = replay(connection, "reduction", tmp_path / f"x.{ending}", stage=REJECTED, where=where)
    assert (report.rows, report.dead_letters, report.dead_letters_left_out) == (40, 0, 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_ledger_can_be_replayed(connection: Connection, tmp_path: Path, ending: str) -> None:
    entries = pl.DataFrame(
        {
            "source_partition": [1, 1],
            "source_topic_id": ["t", None],
            "source_offset": [4, 5],
            "source_time": [MOMENT, MOMENT],
            "run": ["r", None],
            "chunk": [1, None],
            "rows_in": [3, 1],
            "rows_clean": [2, 0],
            "rows_rejected": [1, 1],
            "rows_rerouted": [0, 0],
            "rows_augmented": [0, 0],
            "rows_lost": [0, None],
            "reasons": [[{"reason": "duplicate", "rows": 1}], [{"reason": "garbage", "rows": 1}]],
            "coverage": [[{"axis": "size", "bin": "1-9", "rows": 2}], []],
        },
        schema=ledger.COLUMNS,
    )
    headers = Envelope("reduction", LEDGER, ledger.VERSION, "r", 1, 0, 2, "x/1/4").headers()
    send(connection, encode(entries), headers, LEDGER, partition=1)
    report = replay(connection, "reduction", tmp_path / f"x.{ending}", stage=LEDGER, where="rows_in > 0")
    assert report.rows == 2
    if ending == "jsonl":
        lines = documents(tmp_path / "x.jsonl")
        assert lines[0]["reasons"] == [{"reason": "duplicate", "rows": 1}]
        assert lines[0]["rows_in"] == 3
        assert lines[1]["coverage"] == []
    else:
        assert read(tmp_path / f"x.{ending}").equals(entries)


def test_wrong_usage_is_refused_before_a_broker_is_asked(tmp_path: Path) -> None:
    nowhere = Connection(settings=None, servers="127.0.0.1:1")  # type: ignore[arg-type]
    (tmp_path / "d.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"end the name in .jsonl, .parquet, .arrow"):
        replay(nowhere, "reduction", tmp_path / "x.csv")
    with pytest.raises(UsageError, match="use one of clean, rejected, ledger"):
        replay(nowhere, "reduction", tmp_path / "x.jsonl", stage="raw")
    with pytest.raises(UsageError, match="is a folder"):
        replay(nowhere, "reduction", tmp_path / "d.jsonl")
    with pytest.raises(UnknownFamilyError):
        replay(nowhere, "reductions", tmp_path / "x.jsonl")


def test_a_missing_topic_is_an_error(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"reduction.clean does not exist"):
        replay(connection, "reduction", tmp_path / "x.jsonl")


def test_a_path_that_cannot_be_written_is_an_error(connection: Connection, rows: pl.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match=r"cannot be written .*: choose another place"):
        replay(connection, "reduction", tmp_path / "file" / "x.jsonl")
