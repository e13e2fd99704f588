"""`feedmill eval reduction` from the command line, on a checkpoint with random weights, which is mostly wrong."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from broker.clients import Connection
from broker.topics import delete_topics
from consumers.feed import Feed
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.saved_model import save_model
from consumers.training.checkpoint import TRAINER, write_json
from feedmill.cli import run
from producers.reduction.run import ReductionRun
from producers.run import generate
from tests.consumers.records import topic, write
from tests.feedmill.conftest import Command

# The training set is made from the seed of the evaluation, so that its terms are generated first.
SEED = 31
SMALL = ("--count", "300", "--traces", "12", "--fuel", "5", "--seed", str(SEED))


def training_set() -> pl.DataFrame:
    return pl.concat(generate(ReductionRun(count=400, seed=SEED, fuel=5))).unique("term", maintain_order=True)


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    save_model(SpanPredictor(SpanPredictorConfig(hidden_size=32, num_hidden_layers=1, intermediate_size=32)), folder)
    return folder


@pytest.fixture
def checkpoint(connection: Connection, tmp_path: Path) -> Path:
    """The folder of a checkpoint that was trained on `training_set`."""
    write(connection, training_set(), rows_per_record=128)
    folder = saved(tmp_path / "model")
    feed = Feed(connection, "reduction", split="train", batch_size=16)
    next(iter(feed))
    write_json(folder, TRAINER, {"feed": feed.state_dict()})
    return folder


def test_json_is_one_object_and_nothing_else(called: Command, checkpoint: Path) -> None:
    status, out, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["checkpoint"], report["seed"], report["fuel"]) == (str(checkpoint), SEED, 5)
    assert report["training_terms"] == training_set().height
    # Repeated rows of the training set are dropped, too.
    assert report["dropped"] >= training_set().height
    assert report["generated"] > report["dropped"] + report["repeated"] + 300
    assert report["spans"]["rows"] == 300
    assert (
        report["traces"]["overall"]["traces"]
        == report["traces"]["initial"]["traces"] + report["traces"]["mid_trace"]["traces"]
    )
    assert report["traces"]["initial"]["traces"] == 12
    assert all(band["traces"] >= 4 for band in report["traces"]["by_size"])
    assert sum(report["traces"]["overall"]["failures"].values()) > 0
    shown = {row["term"] for row in report["wrong_rows"]}
    assert shown
    assert not shown & set(training_set()["term"])
    failed = [entry for entry in report["diagnosis"].values() if entry["traces"]]
    assert all(entry["examples"] for entry in failed)


def test_a_terminal_shows_tables_and_marked_terms(called: Command, checkpoint: Path) -> None:
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


def test_a_deleted_training_set_is_an_error_without_unchecked(
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


def test_terms_that_an_ancestor_was_trained_on_are_dropped_too(called: Command, checkpoint: Path) -> None:
    values = json.loads((checkpoint / TRAINER).read_text())
    ancestor = {"checkpoint": "first", "feed": values["feed"]}
    own = json.loads(json.dumps(values["feed"]))
    for bounds in own["spec"]["sources"][0]["bounds"].values():
        bounds["end"] = bounds["begin"]
    for ancestors, known in (([], 0), ([ancestor], training_set().height)):
        write_json(checkpoint, TRAINER, {"feed": own, "ancestors": ancestors})
        status, out, _ = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")
        assert (status, json.loads(out)["training_terms"]) == (0, known)
    write_json(checkpoint, TRAINER, {"feed": own, "ancestors": [{"checkpoint": "model", "feed": None}]})
    status, _, err = called("eval", "reduction", "--checkpoint", str(checkpoint), *SMALL, "--json")
    assert status == 1
    assert "does not record which rows the run read" in err


def test_unchecked_needs_no_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FEEDMILL_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    assert run(["eval", "reduction", "--checkpoint", str(saved(tmp_path / "model")), *SMALL, "--unchecked"]) == 0
    assert "not checked against the training set" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        ([], 2, "--checkpoint"),
        (["--checkpoint", "nowhere"], 1, "nowhere holds no checkpoint"),
        (["--checkpoint", "model"], 1, "model cannot be read"),
        (["--checkpoint", "model", "--fuel", "0"], 2, "--fuel"),
        (["--checkpoint", "model", "--traces", "0"], 2, "--traces"),
    ],
)
def test_wrong_arguments_are_a_one_line_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model")
    assert run(["eval", "reduction", *arguments]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert line in err
