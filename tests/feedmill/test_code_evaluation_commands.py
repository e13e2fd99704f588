"""`feedmill eval rust` and `feedmill eval python`: the report, the files that it writes, and what it refuses."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest

from broker.clients import Connection
from consumers.code_evaluation import sandbox
from feedmill.cli import run
from schema.errors import EvaluationError
from schema.settings import load_settings
from schema.source_code import FAMILY
from tests.commands import command
from tests.consumers.records import write
from tests.feedmill.conftest import Command, caller
from tests.source_code import document, frame

pytestmark = pytest.mark.slow

TESTS = "#[cfg(test)] mod tests { use super::*; #[test] fn test() { assert_eq!(f(), 1); } }"
ROWS = [
    {"task_id": "right", "code": "/// One.\npub fn f() -> i32 { return 1; }", "tests": TESTS},
    {"task_id": "wrong", "prompt": "pub fn f() -> i32 {", "completion": " 2 }", "tests": TESTS},
    {"task_id": "broken", "code": 'pub fn f() -> i32 { "a" }', "tests": TESTS},
    {"task_id": "cut off", "code": "pub fn f() -> i32 {", "tests": TESTS},
]


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of samples and a bad line; its folder is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS) + "not json\n")
    return path


def test_json_is_one_object_with_the_figures_and_all_verdicts(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    called = caller(capfd)
    status, out, err = called("eval", "rust", "samples.jsonl", "--run-tests", "--out", "verdicts.jsonl", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    verdicts = report.pop("verdicts")
    assert [(each["task_id"], each["compiled"], each["passed"]) for each in verdicts] == [
        ("right", True, True),
        ("wrong", True, False),
        ("broken", False, False),
        ("cut off", None, None),
    ]
    assert set(verdicts[0]) >= {"filtered", "error_code", "clippy", "idiomatic", "documented", "seconds"}
    assert (verdicts[0]["clippy"], verdicts[2]["error_code"]) == ({"clippy::needless_return": 1}, "E0308")
    assert (verdicts[3]["filtered"], verdicts[3]["filter_reason"]) == (True, "incomplete")
    assert (report["evaluated_samples"], report["filtered_samples"]) == (3, 1)
    assert (report["filter_reasons"], report["bad_lines"]) == ({"incomplete": 1}, {"not_json": 1})
    assert report["bad_places"] == [[5, "not_json"]]
    assert (report["compile_rate"], report["pass_rate"], report["doc_comment_rate"]) == (2 / 3, 1 / 3, 1 / 3)
    assert report["avg_clippy_warnings"] == 0.5
    assert report["targets"]["avg_clippy_warnings"] == {"target": "<= 2.0", "met": True}
    assert "bubblewrap" in report["sandbox"]
    assert [json.loads(line) for line in Path("verdicts.jsonl").read_text().splitlines()] == verdicts
    assert [json.loads(line) for line in Path("metrics.jsonl").read_text().splitlines()] == [report]


def test_a_terminal_shows_marked_targets_and_the_figures_are_appended(
    samples: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        status, out, _ = caller(capfd)("eval", "rust", "samples.jsonl", "--no-prefilter", "--jobs", "1")
        assert status == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["compile_rate"] == ["50.0%", "(15.0%-85.0%)", ">=", "95%", "missed"]
    assert rows["avg_clippy_warnings"][-1] == "met"
    assert rows["E0308"] == ["1"]
    assert rows["not_json"] == ["1"]
    assert "pass_rate" not in rows
    assert len(Path("metrics.jsonl").read_text().splitlines()) == 2


def test_python_has_the_same_frame(samples: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples.write_text(json.dumps({"code": 'def f():\n    """One."""\n    import os\n', "tests": "def test_f(): f()"}))
    status, out, _ = caller(capfd)("eval", "python", "samples.jsonl", "--run-tests", "--json")
    report = json.loads(out)
    assert (status, report["compile_rate"], report["pass_rate"], report["doc_comment_rate"]) == (0, 1, 1, 1)
    assert report["verdicts"][0]["ruff"]["F401"] == 1
    assert report["avg_ruff_warnings"] >= 1
    assert report["linter"].startswith("ruff ")


def test_the_documents_of_a_language_are_judged_from_the_topic(
    called: Command, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = frame([document(number) for number in range(6)])
    write(connection, rows, family=FAMILY)
    status, out, err = called("eval", "rust", "--topic", "--json")
    assert (status, err) == (0, "")
    verdicts = json.loads(out)["verdicts"]
    rust = rows.filter(pl.col("language") == "rust")
    assert sorted(each["task_id"] for each in verdicts) == sorted(f"{number:016x}" for number in rust["example_id"])
    assert all(each["compiled"] and each["documented"] for each in verdicts)
    status, out, _ = called("eval", "rust", "--topic", "--split", "test", "--json")
    assert json.loads(out)["evaluated_samples"] == rust.filter(pl.col("split") == "test").height


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ([], 2, "either a file of code samples, or --topic"),
        (["samples.jsonl", "--topic"], 2, "either a file of code samples, or --topic"),
        (["samples.jsonl", "--split", "test"], 2, "--split test applies to --topic"),
        (["--topic", "--split", "no"], 2, "one of train, val, test"),
        (["absent.jsonl"], 2, "absent.jsonl cannot be read"),
        (["samples.jsonl", "--crate", "a b"], 2, "NAME=VERSION"),
        (["samples.jsonl", "--crate", "rand", "--no-crates"], 2, "one of the two"),
        (["samples.jsonl", "--out", "./samples.jsonl"], 2, "three different files"),
        (["samples.jsonl", "--metrics", "no/where"], 2, "--metrics no/where cannot be written"),
        (["samples.jsonl", "--out", "no/where.jsonl"], 2, "--out cannot be written at no"),
    ],
)
def test_wrong_arguments_are_a_one_line_error(
    samples: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, line: str
) -> None:
    assert run(["eval", "rust", *arguments]) == status
    err = capfd.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_without_a_sandbox_or_a_toolchain_nothing_is_run(
    samples: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = caller(capfd)
    with monkeypatch.context() as patched:
        patched.setattr(sandbox, "_find_bwraps", list)
        status, out, err = called("eval", "rust", "samples.jsonl")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "--unsafe-no-sandbox" in err
        # These samples are trusted.
        status, out, _ = called("eval", "rust", "samples.jsonl", "--unsafe-no-sandbox", "--json")
        assert (status, json.loads(out)["compile_rate"]) == (0, 2 / 3)
    monkeypatch.setenv("PATH", "/nowhere")
    status, out, err = called("eval", "rust", "samples.jsonl")
    assert (status, out) == (1, "")
    assert "rustup component add clippy" in err


def test_a_sandbox_that_fails_later_ends_the_run_and_leaves_no_verdicts(
    samples: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, call: object) -> None:
        raise EvaluationError("the sandbox could not start: run again")

    monkeypatch.setattr(sandbox.BubblewrapSandbox, "check", lambda self: None)
    monkeypatch.setattr(sandbox.BubblewrapSandbox, "run", fail)
    status, _, err = caller(capfd)("eval", "rust", "samples.jsonl", "--out", "verdicts.jsonl")
    assert (status, err) == (1, "feedmill: the sandbox could not start: run again\n")
    assert sorted(path.name for path in samples.parent.iterdir()) == ["metrics.jsonl", "samples.jsonl"]
    assert Path("metrics.jsonl").read_text() == ""


def test_ctrl_c_stops_it_and_its_samples(samples: Path, tmp_path: Path) -> None:
    samples.write_text(json.dumps({"code": "fn main() { loop {} }"}))
    settings = load_settings(data_dir=tmp_path / "data")
    arguments = (
        "eval",
        "rust",
        str(samples),
        "--run-tests",
        "--metrics",
        str(tmp_path / "m.jsonl"),
        "--test-limit",
        "60",
    )
    with command(settings, tmp_path / "log", *arguments) as running:

        def runs() -> bool:
            for each in psutil.Process(running.process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    if each.cmdline()[:1] == ["./program"]:
                        return True
            return False

        running.wait_until(runs)
        assert running.stop(signal.SIGINT) == 130
    assert running.said().splitlines()[-1] == "feedmill: stopped"
