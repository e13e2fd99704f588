"""`feedmill eval reduction` as its users call it: on a checkpoint with random weights, which is mostly wrong."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from broker.clients import Connection
from broker.topics import delete_topics
from consumers.feed import Feed
from consumers.reduction.checkpoint import TRAINER, save_model, write_json
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from feedmill.cli import run
from producers.reduction.run import ReductionRun, generate
from tests.consumers.records import topic, write
from tests.feedmill.conftest import Command

# A training set made from the seed of the evaluation: the terms of its first rows are not new.
SEED = 31
SMALL = ("--count", "300", "--traces", "12", "--fuel", "5", "--seed", str(SEED))


def training_set() -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=400, seed=SEED, fuel=5))).unique("term", maintain_order=True)


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    save_model(SpanPredictor(SpanPredictorConfig(hidden_size=32, num_hidden_layers=1, intermediate_size=32)), folder)
    return folder


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def checkpoint(connection: Connection, tmp_path: Path) -> Path:
    """One that was trained on `training_set`."""
    write(connection, training_set(), rows_per_record=128)
    folder = saved(tmp_path / "model")
    feed = Feed(connection, "reduction", split="train", batch_size=16)
    next(iter(feed))
    write_json(folder, TRAINER, {"feed": feed.state_dict()})
    return folder


def test_as_json_it_is_one_object_and_nothing_else(called: Command, checkpoint: Path) -> None:
    status, out, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["checkpoint"], told["seed"], told["fuel"]) == (str(checkpoint), SEED, 5)
    assert told["training_terms"] == training_set().height
    # Rows of the training set that come again are repeats of what was dropped.
    assert told["dropped"] >= training_set().height
    assert told["generated"] > told["dropped"] + told["repeated"] + 300
    assert told["spans"]["rows"] == 300
    assert (
        told["traces"]["overall"]["traces"]
        == told["traces"]["initial"]["traces"] + told["traces"]["mid_trace"]["traces"]
    )
    assert told["traces"]["initial"]["traces"] == 12
    assert all(band["traces"] >= 4 for band in told["traces"]["by_size"])
    assert sum(told["traces"]["overall"]["failures"].values()) > 0
    shown = {row["term"] for row in told["wrong_rows"]}
    assert shown
    assert not shown & set(training_set()["term"])
    failed = [entry for entry in told["diagnosis"].values() if entry["traces"]]
    assert all(entry["examples"] for entry in failed)


def test_on_a_terminal_it_is_tables_and_marked_terms(called: Command, checkpoint: Path) -> None:
    status, out, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL)
    assert status == 0
    for part in ("Exact spans", "Whole traces", "Diagnosis", "Rows with a wrong span", "20-49 nodes", "deeper than 7"):
        assert part in out
    assert "\\." in out
    assert f"among the {training_set().height:,} of the training set and dropped" in err
    assert "rows: 300 of 300" in err
    assert "traces:" in err


def test_the_same_seed_gives_the_same_figures(called: Command, checkpoint: Path) -> None:
    first, again = (
        json.loads(called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")[1]) for _ in range(2)
    )
    assert {**first, "elapsed_s": 0} == {**again, "elapsed_s": 0}


def test_a_training_set_that_is_gone_is_refused_unless_nobody_asks(
    called: Command, connection: Connection, checkpoint: Path
) -> None:
    delete_topics(connection, [topic(connection)])
    status, out, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert topic(connection) in err
    assert "--unchecked" in err
    status, out, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json", "--unchecked")
    assert (status, err) == (0, "")
    assert (json.loads(out)["training_terms"], json.loads(out)["dropped"]) == (None, 0)


def test_unchecked_needs_no_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDMILL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert run(["eval", "reduction", "--checkpoint", str(saved(tmp_path / "model")), *SMALL, "--unchecked"]) == 0
    assert "not checked against the training set" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ([], 2, "--checkpoint"),
        (["--checkpoint", "nowhere"], 1, "nowhere holds no checkpoint"),
        (["--checkpoint", "model"], 1, "model cannot be read"),
        (["--checkpoint", "model", "--fuel", "0"], 2, "--fuel"),
        (["--checkpoint", "model", "--traces", "0"], 2, "--traces"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model")
    assert run(["eval", "reduction", *arguments]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert told in err
