"""The commands `replay` and `train reduction`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from broker.clients import Connection
from feedmill.cli import run
from tests import reductions
from tests.consumers.records import write


@pytest.fixture
def clean(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Connection:
    for name, value in connection.settings.environment(connection.servers).items():
        monkeypatch.setenv(name, value)
    write(connection, reductions.valid(200))
    return connection


def test_replay_as_json_is_one_object_and_nothing_else(
    clean: Connection, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.parquet"
    assert run(["replay", "reduction", "--from", "1", "--where", "size > 5", "--out", str(out), "--json"]) == 0
    stdout, aside = capfd.readouterr()
    report = json.loads(stdout)
    assert report["rows"] == pl.read_parquet(out).height > 0
    assert report["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert all(begin == 1 for begin, _ in report["offsets"].values())
    assert aside == ""


def test_replay_prints_the_path_of_the_file(
    clean: Connection, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", "reduction", "--out", str(tmp_path / "x.jsonl")]) == 0
    stdout, aside = capfd.readouterr()
    assert stdout == ""
    assert f"200 rows -> {tmp_path / 'x.jsonl'}" in aside


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["reduction", "--out", "x.csv"], 2, "end the name in .jsonl, .parquet, .arrow"),
        (["reductions", "--out", "x.jsonl"], 2, "unknown family 'reductions'"),
        (["reduction", "--out", "x.jsonl", "--from", "noon"], 2, "neither an offset nor a time"),
        (["reduction", "--out", "x.jsonl", "--stage", "raw"], 2, "use one of clean, rejected, ledger"),
        (["reduction"], 2, "--out"),
        (["reduction", "--out", "x.jsonl", "--where", "nothing = 1"], 1, "there is no column nothing"),
        (["reduction", "--out", "x.jsonl", "--from", "3", "--to", "2"], 2, "before its start 3"),
    ],
)
def test_replay_prints_an_error_in_one_line(
    clean: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["replay", *arguments]) == status
    stdout, aside = capfd.readouterr()
    assert stdout == ""
    assert line in aside
    assert aside.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))


def test_train_writes_a_checkpoint_and_shows_samples(
    clean: Connection, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert run(["train", "reduction", "--steps", "2", "--batch-size", "8", "--out", str(out)]) == 0
    stdout, aside = capfd.readouterr()
    assert (out / "model.safetensors").exists()
    assert "\\." in stdout
    assert "in 2 steps" in aside


def test_train_as_json_is_one_object_and_nothing_else(
    clean: Connection, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--steps", "2", "--batch-size", "8", "--max-tokens", "40", "--out", str(tmp_path / "model"), "--json"]
    assert run(["train", "reduction", *arguments]) == 0
    stdout, aside = capfd.readouterr()
    report = json.loads(stdout)
    assert report["steps"] == len(report["losses"]) == 2
    assert report["checkpoint"] == str(tmp_path / "model")
    assert report["too_long"] > 0
    assert all(set(sample) == {"term", "true_span", "predicted_span", "correct"} for sample in report["samples"])
    assert aside == ""


def test_train_refuses_an_unknown_split(clean: Connection, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "reduction", "--split", "training"]) == 2
    assert "use one of train, val, test" in capfd.readouterr().err
