"""`feedmill train reduction`, called from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.clients import Connection
from consumers.training.budget import Budget
from consumers.training.loss_log import read_losses
from consumers.training.options import Judging, Saving, TrainOptions
from consumers.training.ranks import Ranks
from consumers.training.report import Step
from feedmill.train_commands import show_steps
from feedmill.train_settings import chosen_settings, parse_curriculum
from schema.errors import UsageError
from tests import reductions
from tests.consumers.records import write
from tests.feedmill.conftest import Command

SHORT = ("--batch-size", "8", "--max-tokens", "60")


@pytest.fixture
def trained(connection: Connection, called: Command) -> Command:
    write(connection, reductions.valid(200))
    return called


def test_a_resume_keeps_the_settings_of_the_run(trained: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    status, out_text, _ = trained("train", "reduction", "--steps", "3", "--seed", "4", *SHORT, "--out", out)
    assert status == 0
    assert "held-out terms" in out_text
    status, out_text, err = trained("train", "reduction", "--resume", "--steps", "5", "--out", out, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out_text)
    assert (report["resumed_from"], report["steps"], len(report["losses"])) == (3, 5, 5)
    saved = json.loads((tmp_path / "model" / "step-00000005" / "trainer.json").read_text())["settings"]
    assert (saved["seed"], saved["shuffle_seed"], saved["batch_size"], saved["max_tokens"]) == (4, 4, 8, 60)


def test_invalid_options_are_a_one_line_error(trained: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    assert trained("train", "reduction", "--steps", "2", *SHORT, "--out", out)[0] == 0
    for status, line, arguments in (
        (2, "holds a run with step-00000002: continue it with --resume, remove it with --replace", ()),
        (2, "batch_size 8, but 9 is asked for", ("--resume", "--batch-size", "9")),
        (2, "split train, but test is asked for", ("--resume", "--split", "test")),
        (2, "seed 0, but 7 is asked for", ("--resume", "--seed", "7")),
        (2, "batch_size 8 is less than least_rows 9: raise batch_size", ("--batch-size", "8", "--least-rows", "9")),
        (1, "saved with least rows 1, but this feed has 3: give", ("--resume", "--least-rows", "3")),
        (2, "and --init-from elsewhere begins a new one: give one of them", ("--resume", "--init-from", "elsewhere")),
        (1, "holds no checkpoint: name the folder", ("--replace", "--init-from", str(tmp_path / "absent"))),
        (2, "is in the new run's own folder: choose another --out", ("--replace", "--init-from", out)),
        (2, "--old-share needs --init-from", ("--replace", "--old-share", "0.2")),
        (2, "a resumed run keeps its rows", ("--resume", "--old-share", "0.2")),
        (2, "is malformed: give SHARE:TOKENS", ("--length-curriculum", "short ones first")),
        (1, "holds no checkpoint to resume", ("--resume", "--out", str(tmp_path / "absent"))),
    ):
        exit_status, out_text, err = trained("train", "reduction", "--steps", "4", "--out", out, *arguments)
        assert (exit_status, out_text) == (status, ""), err
        assert line in err
        assert err.count("\n") == 1
    assert len(read_losses(tmp_path / "model")) == 2


def test_init_from_begins_a_new_run_with_the_weights_and_newer_rows(
    connection: Connection, trained: Command, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert trained("train", "reduction", "--steps", "3", *SHORT, "--out", str(first))[0] == 0
    write(connection, reductions.valid(100, first=1000))
    more = ("--init-from", str(first), "--out", str(second), "--json", "--old-share", "0.5")
    status, out_text, err = trained("train", "reduction", "--steps", "2", *SHORT, *more)
    assert (status, err) == (0, "")
    report = json.loads(out_text)
    assert (report["steps"], report["resumed_from"], len(report["losses"])) == (2, None, 2)
    assert report["before"]["held_out_rows"] == report["held_out_rows"]
    saved = [
        json.loads((run / step / "trainer.json").read_text())
        for run, step in ((first, "step-00000003"), (second, "step-00000002"))
    ]
    assert [ancestor["feed"] for ancestor in saved[1]["ancestors"]] == [saved[0]["feed"]]
    assert saved[1]["feed"]["spec"]["sources"][0]["bounds"] != saved[0]["feed"]["spec"]["sources"][0]["bounds"]


def test_replace_deletes_the_earlier_run(trained: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    for steps in ("3", "2"):
        assert trained("train", "reduction", "--steps", steps, *SHORT, "--out", out, "--replace")[0] == 0
    assert [path.name for path in (tmp_path / "model").glob("step-*")] == ["step-00000002"]


def test_minutes_batch_tokens_and_a_length_curriculum_are_applied(trained: Command, tmp_path: Path) -> None:
    out = str(tmp_path / "model")
    limits = (
        "--minutes",
        "0.02",
        "--batch-tokens",
        "512",
        "--max-tokens",
        "90",
        "--length-curriculum",
        "0.4:30,0.7:60",
    )
    status, out_text, err = trained("train", "reduction", *limits, "--out", out, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out_text)
    assert report["steps"] == len(report["losses"]) > 0
    assert report["elapsed_s"] >= 1.2
    assert report["held_out"]["rows"] == report["held_out_rows"] > 0
    settings = json.loads(next((tmp_path / "model").glob("step-*/trainer.json")).read_text())["settings"]
    assert settings["curriculum"] == [[0.4, 30], [0.7, 60]]
    assert (settings["batch_size"], settings["batch_tokens"]) == (None, 512)


def test_a_stage_longer_than_the_run_is_left_out(trained: Command, tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert (
        trained("train", "reduction", "--steps", "2", *SHORT, "--length-curriculum", "0.5:60", "--out", str(out))[0]
        == 0
    )
    assert json.loads((out / "step-00000002" / "trainer.json").read_text())["settings"]["curriculum"] == []


def settings_of(world: int, saved: dict[str, Any], **given: Any) -> dict[str, Any]:
    names = ("split", "batch_size", "batch_tokens", "least_rows", "max_tokens", "seed", "curriculum", "mode")
    return chosen_settings(dict.fromkeys(names) | given, saved, Ranks(world=world))


def test_a_step_is_shown_with_the_judgement_that_follows(tmp_path: Path) -> None:
    options = TrainOptions(saving=Saving(out=tmp_path), budget=Budget(steps=5), judging=Judging(every_steps=2))
    shown: list[str] = []
    show = show_steps(lambda done, note="": shown.append(note), options)
    for number in range(1, 6):
        show(
            Step(
                number=number,
                loss=1.5,
                learning_rate=0.1,
                gradient_norm=1.0,
                tokens_per_s=700.0,
                padding_share=0.0,
                elapsed_s=2.0,
            )
        )
    rate = "loss 1.500, 700 tokens/s"
    judged = f"{rate}, judging held-out rows"
    assert shown == [rate, judged, rate, judged, judged]


def test_the_default_batch_tokens_hold_a_longest_row_for_every_rank() -> None:
    defaults = [settings_of(world, {})["batch_tokens"] for world in (1, 2, 8)]
    assert defaults == [4096, 2 * 2050, 8 * 2050]
    assert settings_of(1, {}, least_rows=8)["batch_tokens"] == 8 * 2050
    assert settings_of(8, {}, max_tokens=100)["batch_tokens"] == 4096
    assert settings_of(8, {}, batch_size=64)["batch_tokens"] is None


def test_a_run_is_not_resumed_on_more_ranks_than_its_batches_hold_rows() -> None:
    saved = {"batch_tokens": 4100, "least_rows": 2}
    for world in (1, 2):
        assert (settings_of(world, saved)["batch_tokens"], settings_of(world, saved)["least_rows"]) == (4100, 2)
    line = "^the run's batches hold at least 2 rows, too few for 4 ranks: resume with at most 2 ranks, or begin"
    with pytest.raises(UsageError, match=line):
        settings_of(4, saved)


@pytest.mark.parametrize("text", ["0.5", "0.5:x", "0.6:30,0.5:60", "0:30", "1:30", "", "0.5:30:60"])
def test_a_malformed_curriculum_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="curriculum"):
        parse_curriculum(text)


def test_a_curriculum_is_shares_and_tokens() -> None:
    assert parse_curriculum("0.3:128,0.6:384") == [[0.3, 128], [0.6, 384]]
    assert parse_curriculum("none") == []
