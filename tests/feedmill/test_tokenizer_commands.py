"""`feedmill tokenizer train`, and `feedmill replay code --windows` with the tokenizer that it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from broker.clients import Connection
from consumers.source_code.tokenizer import load_tokenizer
from feedmill.cli import app
from schema.source_code import FAMILY
from tests.consumers.records import write
from tests.source_code import valid_rows


def run(*arguments: str | Path, fails: bool = False) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert (result.exit_code != 0) == fails, result.output
    return str(result.exception) if fails else result.stdout


def test_a_tokenizer_is_trained_on_folders_and_the_same_folders_give_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    for number, text in enumerate(valid_rows(12)["text"]):
        (tmp_path / "package" / f"file_{number:02}.py").write_text(text)
    reports = [
        json.loads(
            run(
                "tokenizer", "train", tmp_path / "package", "--out", tmp_path / name, "--vocabulary-size", 350, "--json"
            )
        )
        for name in ("one.json", "other.json")
    ]
    assert reports[0]["sha256"] == reports[1]["sha256"] == load_tokenizer(tmp_path / "one.json").sha256
    assert 300 < reports[0]["vocabulary_size"] <= 350
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.json", "other.json", "package"]


def test_windows_of_the_topic_are_replayed_with_a_tokenizer_trained_on_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    rows = valid_rows(20)
    write(connection, rows, family=FAMILY)
    tokenizer = tmp_path / "tokenizer.json"
    run("tokenizer", "train", "code", "--out", tokenizer, "--vocabulary-size", 320)
    cut = ("--windows", "--tokenizer", tokenizer, "--window", 64, "--stride", 16)
    report = json.loads(run("replay", "code", *cut, "--out", tmp_path / "windows.jsonl", "--json"))
    run("replay", "code", *cut, "--out", tmp_path / "windows.parquet", "--where", "language = 'python'")
    frame = pl.read_ndjson(tmp_path / "windows.jsonl")
    assert frame.columns == [
        *("path", "split", "example_id", "part", "input_ids"),
        *("char_start", "char_end", "line_start", "line_end"),
    ]
    assert frame.height == report["rows"]
    assert report["form"]["tokenizer"] == load_tokenizer(tokenizer).sha256
    text_of = {f"{number:016x}": text for number, text in rows.select("example_id", "text").iter_rows()}
    assert set(frame["example_id"]) == set(text_of)
    loaded = load_tokenizer(tokenizer).tokenizer
    for row in frame.iter_rows(named=True):
        text = text_of[row["example_id"]]
        assert loaded.decode(row["input_ids"]) == text[row["char_start"] : row["char_end"]]
        assert row["line_start"] == 1 + text[: row["char_start"]].count("\n")
    some = pl.read_parquet(tmp_path / "windows.parquet")
    python = set(rows.filter(pl.col("language") == "python")["example_id"])
    assert set(some["example_id"]) == python
    assert (some["input_ids"].list.len() <= 64).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--windows",), "--windows needs a tokenizer"),
        (("--stride", "9"), "--stride is for windows: add --windows"),
        (("--windows", "--tokenizer", "t", "--stage", "rejected"), "only rows of clean"),
        (("--windows", "--tokenizer", "t", "--window", "0"), "window is 0"),
        (("--manifest", "m", "--windows"), "leave out --windows"),
    ],
)
def test_options_of_windows_that_do_not_fit_are_refused(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    assert message in run("replay", "code", "--out", tmp_path / "rows.jsonl", *arguments, fails=True)


def test_a_topic_and_a_folder_are_not_mixed(tmp_path: Path) -> None:
    message = run("tokenizer", "train", "code", "src", "--out", tmp_path / "t.json", fails=True)
    assert "write ./code for a folder" in message
    assert "is a folder" in run("tokenizer", "train", "src", "--out", tmp_path, fails=True)
