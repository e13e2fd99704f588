"""A stopped, killed or finished run resumes exactly, and refuses other settings."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.reduction.saved_model import load_model
from consumers.training.loss_log import read_losses
from consumers.training.options import Optimisation, Saving
from consumers.training.report import Step, TrainReport
from consumers.training.stages import CurriculumStage
from consumers.training.stopping import StopRequest
from schema.errors import CheckpointError, TrainingStoppedError, UsageError
from tests import reductions
from tests.consumers.records import write
from tests.consumers.span_runs import (
    SMALL,
    feed,
    options,
    resumed,
    stopped_after,
    train_spans,
)


def test_a_run_stopped_and_resumed_three_times_learns_the_same(clean: Connection, tmp_path: Path) -> None:
    straight = train_spans(feed(clean), options(tmp_path / "straight", 60))
    out = tmp_path / "model"
    saving = Saving(out=out, every_steps=4)
    batches = len(list(feed(clean)))
    # In the first pass, at its very end, and in the second pass.
    for step in (7, batches, batches + 5):
        stop, watch = stopped_after(step)
        with pytest.raises(TrainingStoppedError, match=rf"stopped by SIGTERM after step {step}: .* --resume"):
            train_spans(feed(clean), options(out, 60, saving=saving), watch, stop=stop)
        assert load_model(out / f"step-{step:08d}") is not None
        saving = resumed(out)
    report = train_spans(feed(clean), options(out, 60, saving=saving))
    assert report.losses == straight.losses
    assert report.resumed_from == batches + 5
    assert (report.rows, report.real_tokens, report.steps) == (straight.rows, straight.real_tokens, 60)
    assert report.judgement.figures["held_out"] == straight.judgement.figures["held_out"]
    ends = [load_file(place / "step-00000060" / "model.safetensors") for place in (out, tmp_path / "straight")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_stages_of_short_terms_come_first_and_resume_anywhere(clean: Connection, tmp_path: Path) -> None:
    def taught(out: Path, *, stop_after: int | None = None, resume: bool = False) -> TrainReport:
        stop, watch = stopped_after(stop_after) if stop_after else (None, lambda step: seen.append(step))
        stages = [CurriculumStage(feed(clean, max_tokens=40), 0.3), CurriculumStage(feed(clean, max_tokens=70), 0.6)]
        saving = Saving(out=out, resume=resume)
        return train_spans(feed(clean), options(out, 30, saving=saving), watch, before=stages, stop=stop)

    seen: list[Step] = []
    straight = taught(tmp_path / "straight")
    out = tmp_path / "model"
    for count, step in enumerate((4, 9, 10, 25)):
        with pytest.raises(TrainingStoppedError):
            taught(out, stop_after=step, resume=count > 0)
    assert taught(out, resume=True).losses == straight.losses
    checkpoint = tmp_path / "straight" / "step-00000030"
    manifests = [json.loads((checkpoint / f"manifest{part}.json").read_text()) for part in ("-1", "-2", "")]
    assert [manifest["spec"]["max_tokens"] for manifest in manifests] == [40, 70, 2050]
    batches = []
    for tokens, steps in ((40, 9), (70, 9), (2050, 12)):
        batches += itertools.islice(itertools.cycle(list(feed(clean, max_tokens=tokens))), steps)
    # Each stage stays within its first pass, because the second pass has another shuffle.
    assert straight.rows == sum(len(batch) for batch in batches)
    with pytest.raises(UsageError, match=r"curriculum \[\[0.3, 40\], \[0.6, 70\]\], but \[\] is asked for"):
        train_spans(feed(clean), options(out, 30, saving=resumed(out)))


def test_steps_after_the_checkpoint_are_taken_again(clean: Connection, tmp_path: Path) -> None:
    straight = train_spans(feed(clean), options(tmp_path / "straight", 20))
    out = tmp_path / "model"

    class Killed(BaseException):
        pass

    def kill(step: Step) -> None:
        if step.number == 11:
            raise Killed

    with pytest.raises(Killed):
        train_spans(feed(clean), options(out, 20, saving=Saving(out=out, every_steps=4)), kill)
    assert len(read_losses(out)) == 11
    report = train_spans(feed(clean), options(out, 20, saving=resumed(out)))
    assert report.resumed_from == 8
    assert report.losses == straight.losses
    assert [line["step"] for line in read_losses(out)] == list(range(1, 21))


def test_a_finished_run_is_resumed_with_more_steps(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = train_spans(feed(clean), options(out, 5))
    same = train_spans(feed(clean), options(out, 5, saving=resumed(out)))
    assert same.losses == first.losses
    assert same.judgement.figures["held_out"] == first.judgement.figures["held_out"]
    more = train_spans(feed(clean), options(out, 9, saving=resumed(out)))
    assert more.losses[:5] == first.losses
    assert more.steps == 9
    assert json.loads((out / "training.json").read_text())["steps"] == 9


def test_a_resumed_run_sees_its_snapshot_and_held_out_rows_after_new_rows_arrived(
    clean: Connection, tmp_path: Path
) -> None:
    straight = train_spans(feed(clean), options(tmp_path / "straight", 40))
    out = tmp_path / "model"
    stop, watch = stopped_after(9)
    with pytest.raises(TrainingStoppedError):
        train_spans(feed(clean), options(out, 40), watch, stop=stop)
    write(clean, reductions.valid(300, first=5000))
    report = train_spans(feed(clean), options(out, 40, saving=resumed(out)))
    assert report.losses == straight.losses
    assert report.judgement.figures["held_out"] == straight.judgement.figures["held_out"]


def test_a_run_in_follow_mode_stops_while_it_waits_and_resumes_with_new_rows(clean: Connection, tmp_path: Path) -> None:
    def following() -> Feed:
        return Feed(clean, "reduction", batch_size=32, mode="follow", shuffle_seed=1, options=FeedOptions(linger_s=0.1))

    out = tmp_path / "model"
    rows = [len(batch) for batch in Feed(clean, "reduction", batch_size=32)]
    seen: list[int] = []

    def watch(step: Step) -> None:
        seen.append(step.number)
        if step.number == len(rows):
            # All rows have been seen, so the signal arrives while the run waits for more.
            signal.setitimer(signal.ITIMER_REAL, 1.0)

    stop = StopRequest()
    before = signal.signal(signal.SIGALRM, stop.heed)
    try:
        with pytest.raises(TrainingStoppedError, match=f"stopped by SIGALRM after step {len(rows)}"):
            train_spans(following(), options(out, len(rows) + 2), watch, stop=stop)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == list(range(1, len(rows) + 1))
    write(clean, reductions.valid(200, first=5000))
    report = train_spans(following(), options(out, len(rows) + 2, saving=resumed(out)))
    assert report.steps == len(rows) + 2
    assert report.rows == sum(rows) + 64


def test_a_resume_without_a_checkpoint_is_refused(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume: train without --resume"):
        train_spans(feed(clean), options(tmp_path / "model", 3, saving=resumed(tmp_path / "model")))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 5}, "seed 0, but 5 is asked for"),
        ({"learning_rate": 1e-3}, "learning_rate 0.002, but 0.001 is asked for"),
        ({"optimisation": Optimisation(learning_rate=2e-3, warmup_steps=30, accumulation=2)}, "accumulation 1, but 2"),
    ],
)
def test_a_resume_with_another_option_names_both_values(
    clean: Connection, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    out = tmp_path / "model"
    train_spans(feed(clean), options(out, 2))
    with pytest.raises(UsageError, match=line):
        train_spans(feed(clean), options(out, 4, saving=resumed(out), **changes))


def test_a_resume_with_another_size_of_the_model_names_both_values(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train_spans(feed(clean), options(out, 2))
    with pytest.raises(UsageError, match="step-00000002 holds a model with hidden_size 32, but 64 is asked for"):
        train_spans(feed(clean), options(out, 4, saving=resumed(out)), sizes={**SMALL, "hidden_size": 64})


def test_a_checkpoint_of_an_earlier_build_resumes_exactly(clean: Connection, tmp_path: Path) -> None:
    straight = train_spans(feed(clean), options(tmp_path / "straight", 8))
    out = tmp_path / "model"
    stop, watch = stopped_after(4)
    with pytest.raises(TrainingStoppedError):
        train_spans(feed(clean), options(out, 8), watch, stop=stop)
    trainer = out / "step-00000004" / "trainer.json"
    saved = json.loads(trainer.read_text())
    # Keys that earlier builds did not write.
    del saved["more_random"], saved["ancestors"], saved["settings"]["accumulation"]
    trainer.write_text(json.dumps(saved))
    assert train_spans(feed(clean), options(out, 8, saving=resumed(out))).losses == straight.losses


def test_a_resume_with_another_feed_names_both_values(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train_spans(feed(clean), options(out, 2))
    for other, line in (
        (
            Feed(clean, "reduction", batch_size=16, shuffle_seed=1, options=FeedOptions(bucket=True)),
            "batch_size 32, but 16",
        ),
        (
            Feed(clean, "reduction", batch_size=32, shuffle_seed=2, options=FeedOptions(bucket=True)),
            "shuffle_seed 1, but 2",
        ),
        (Feed(clean, "reduction", split="test", batch_size=32, shuffle_seed=1), "split train, but test"),
        (feed(clean, max_tokens=99), "max_tokens 2050, but 99"),
    ):
        with pytest.raises(UsageError, match=line):
            train_spans(other, options(out, 4, saving=resumed(out)))


def test_a_damaged_checkpoint_is_refused(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train_spans(feed(clean), options(out, 2))
    (out / "step-00000002" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000002 cannot be read .* use an earlier checkpoint"):
        train_spans(feed(clean), options(out, 4, saving=resumed(out)))
