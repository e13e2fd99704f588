"""`feedmill produce code`: its rows, its report, and the paths and options that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from broker.clients import Connection
from broker.topics import topic_name
from feedmill import source_code_commands
from feedmill.cli import run
from feedmill.source_code_commands import splits_line, telemetry
from producers.run import generate
from producers.source_code.run import CodeRun
from schema.record import RAW, decode
from schema.source_code import FAMILY
from tests.producers.source_code.test_source_code_run import hostile_tree, program
from tests.producers.source_code.test_walking import git
from tests.topic_records import all_records


def produce_code(*arguments: str) -> None:
    assert run(["produce", "code", *arguments]) == 0


def test_a_file_holds_the_run_and_the_report_adds_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    top = hostile_tree(tmp_path / "tree")
    out = tmp_path / "rows.jsonl"
    produce_code(str(top), "--out", str(out), "--workers", "1")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    rows = pl.concat(generate(CodeRun(paths=[str(top)])))
    assert [row["example_id"] for row in written] == [f"{row:016x}" for row in rows["example_id"]]
    wanted = {"text", "language", "repository", "path", "kind", "role", "weight", "phase", "split", "example_id"}
    assert wanted | {"augmented_from"} <= set(written[0])
    shown, said = capfd.readouterr()
    assert f"2 documents of run code-tree -> {out}" in said
    assert "2/18 files passed (11.1%), filtered: 2 nul_bytes, 1 special_file, " in said
    assert any(line.split()[:4] == ["│", "too_large", "│", "1"] for line in shown.splitlines())


def test_json_is_one_object_whose_counts_add_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    top = hostile_tree(tmp_path / "tree")
    produce_code(str(top), "--out", str(tmp_path / "rows.jsonl"), "--workers", "1", "--json")
    out, err = capfd.readouterr()
    figures = json.loads(out)
    assert err == ""
    assert figures["files_seen"] == figures["documents"] + sum(figures["skipped"].values())
    assert sum(figures["splits"].values()) == figures["rows"]
    assert (figures["rows"], figures["documents"], figures["crlf_files"], figures["sources"]) == (2, 2, 1, 1)
    assert (figures["family"], figures["run"], figures["to"]) == ("code", "code-tree", str(tmp_path / "rows.jsonl"))


def test_exclusions_are_options(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    top = tmp_path / "tree"
    for path in ("a.py", "tests/b.py", "benches/c.py", "examples/d.py", "vendor/e.py"):
        program(top, path, path[-4])
    options = ["--skip-tests", "--skip-benches", "--skip-examples", "--keep-vendor", "--file-limit", "1000"]
    produce_code(str(top), "--out", str(tmp_path / "rows.jsonl"), "--workers", "1", "--json", *options)
    figures: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert (figures["documents"], figures["skipped"]) == (2, {"test": 1, "bench": 1, "example": 1})


def test_documents_with_words_of_evaluation_tasks_are_left_out_and_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "tree"
    for name in ("a", "b", "c", "d"):
        program(top, f"{name}.py", name)
    task = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    for name, words in (("b", task), ("c", task.replace("seven", "7")), ("d", task.upper())):
        with (top / f"{name}.py").open("a") as file:
            file.write(f"# {words}\n")
    tasks = [tmp_path / "one.jsonl", tmp_path / "other.jsonl"]
    tasks[0].write_text(json.dumps({"prompt": task}))
    tasks[1].write_text(json.dumps({"prompt": task[::-1]}))
    options = [part for path in tasks for part in ("--decontaminate", str(path))]
    produce_code(str(top), "--out", str(tmp_path / "rows.jsonl"), "--workers", "1", "--json", *options)
    figures = json.loads(capfd.readouterr().out)
    assert (figures["files_seen"], figures["documents"], figures["skipped"]) == (4, 2, {"contaminated": 2})
    written = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["path"] for row in written] == ["a.py", "c.py"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["absent"], "absent does not exist: "),
        ([".", "--decontaminate", "absent.jsonl"], "--decontaminate absent.jsonl cannot be read "),
        (["--follow", "."], "--follow fills gaps with made rows, and source code is not made but read: "),
    ],
)
def test_unusable_arguments_are_refused_before_a_broker_is_looked_for(
    arguments: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source_code_commands, "connected", lambda family: pytest.fail("connected"))
    assert run(["produce", "code", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert complaint in line


def test_a_topic_receives_the_documents_of_a_tree(
    tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(source_code_commands, "connected", lambda family: connection)
    for number in range(5):
        program(tmp_path, f"{number}.py", f"n{number}")
    (tmp_path / "long.txt").write_text("word " * 40_000)
    produce_code(str(tmp_path), "--json", "--workers", "1")
    figures = json.loads(capfd.readouterr().out)
    assert figures["to"] == topic_name(connection.settings, FAMILY.name, RAW)
    records = all_records(connection, FAMILY, RAW)
    rows = pl.concat(decode(record.value, FAMILY.wire, 1_000_000) for record in records)
    wanted = pl.concat(generate(CodeRun(paths=[str(tmp_path)])))
    assert rows.sort("path").equals(wanted.sort("path"))
    assert figures["rows"] == rows.height == 6


def test_histories_are_an_option_and_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    top, out = tmp_path / "tree", str(tmp_path / "rows.jsonl")
    program(top, "a.py", "a")
    git(top, "init", "--quiet")
    for number in range(3):
        program(top, "a.py", f"n{number}")
        git(top, "add", ".")
        git(top, "commit", "--quiet", "-m", f"Change {number}, says somebody@mailhost.net")
    produce_code(str(top), "--out", out, "--workers", "1", "--git-history", "--json")
    figures = json.loads(capfd.readouterr().out)
    assert (figures["rows"], figures["documents"], figures["evolutions"], figures["commits"]) == (3, 1, 2, 3)
    assert (figures["history_left_out"], sum(figures["scrubbed"].values())) == ({"change_added": 1}, 2)
    produce_code(str(top), "--out", out, "--workers", "1", "--git-history")
    assert "2 changes of 3 commits, left out: 1 change_added; replaced: 2 scrubbed_" in capfd.readouterr().err


def test_the_telemetry_of_an_empty_tree_is_a_line_too() -> None:
    assert telemetry({"documents": 0, "files_seen": 0, "skipped": {}}) == "0/0 files passed, filtered: none"
    assert splits_line({"train": 0, "val": 0, "test": 0}) == "splits: train 0, val 0, test 0"
    assert "train 523 (46.2%), val 163, test 446. A large" in splits_line({"train": 523, "val": 163, "test": 446})
