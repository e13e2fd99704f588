"""The training loop is generic: a toy model of scenarios trains, resumes exactly and begins with a checkpoint."""

from __future__ import annotations

import ast
import itertools
import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import consumers.training
from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.scenario.tensors import ScenarioBatch
from consumers.training.budget import Budget
from consumers.training.options import Judging, Optimisation, Saving, TrainOptions
from consumers.training.report import Step, TrainReport
from consumers.training.run import train
from consumers.training.stopping import StopRequest
from consumers.training.task import Judgement
from schema.errors import CheckpointError, TrainingStoppedError, UsageError
from schema.scenario import FAMILY
from tests import scenarios
from tests.consumers import toy_task
from tests.consumers.records import write
from tests.consumers.toy_task import ToyModel, ToyTask

# Dropout draws from torch's generator at every step, so an exact resume needs the generator's state.
TASK = ToyTask(dropout=0.3)
STEPS = 8


@pytest.fixture
def clean(connection: Connection) -> Connection:
    write(connection, scenarios.valid_rows(200), rows_per_record=32, family=FAMILY)
    return connection


def feed(connection: Connection, **named: Any) -> Feed:
    return Feed(connection, "scenario", batch_size=8, shuffle_seed=1, options=FeedOptions(linger_s=0.1), **named)


def options(out: Path, steps: int = STEPS, *, accumulation: int = 2, **saving: Any) -> TrainOptions:
    return TrainOptions(
        saving=Saving(out=out, every_steps=3, **saving),
        budget=Budget(steps=steps),
        optimisation=Optimisation(learning_rate=0.05, warmup_steps=2, accumulation=accumulation),
        judging=Judging(rows=20, every_steps=4),
    )


def interrupted(connection: Connection, out: Path, step: int) -> None:
    """Train until a signal after `step`."""
    stop = StopRequest()

    def watch(done: Step) -> None:
        if done.number == step:
            stop.heed(signal.SIGTERM, None)

    with pytest.raises(TrainingStoppedError, match="`feedmill train scenario --resume --out"):
        train(TASK, feed(connection), options(out), watch, stop=stop)


def test_a_toy_task_learns_and_is_judged(clean: Connection, tmp_path: Path) -> None:
    report = train(ToyTask(), feed(clean), options(tmp_path / "toy", 60))
    assert report.last_loss < 0.5 * report.first_loss
    saved = json.loads((tmp_path / "toy" / "training.json").read_text())
    assert saved["error"] == report.judgement.figures["error"] < 3
    assert (saved["features"], saved["accumulation"], saved["steps"]) == (8, 2, 60)
    assert (tmp_path / "toy" / "toy.safetensors").exists()
    assert report.rows == 60 * 2 * 8


def test_a_step_with_accumulation_is_a_step_on_a_batch_of_all_rows(clean: Connection, tmp_path: Path) -> None:
    """Two batches of 8 rows in the topic's order are one batch of 16; weights differ from row to row."""
    plain = FeedOptions(prefetch=0)
    reports: list[TrainReport] = []
    for rows, accumulation in ((16, 1), (8, 2), (4, 4)):
        source = Feed(clean, "scenario", batch_size=rows, options=plain)
        reports.append(train(ToyTask(), source, options(tmp_path / str(rows), 5, accumulation=accumulation)))
    for report in reports[1:]:
        assert report.losses == pytest.approx(reports[0].losses, rel=1e-4)
        assert report.rows == reports[0].rows
    ends = [load_file(tmp_path / str(rows) / "toy.safetensors") for rows in (16, 8, 4)]
    for end in ends[1:]:
        for name, value in end.items():
            torch.testing.assert_close(value, ends[0][name], rtol=1e-4, atol=1e-5)


def test_a_toy_run_with_dropout_resumes_exactly(clean: Connection, tmp_path: Path) -> None:
    straight = train(TASK, feed(clean), options(tmp_path / "straight"))
    out = tmp_path / "toy"
    interrupted(clean, out, 5)
    torch.manual_seed(99)
    resumed = train(TASK, feed(clean), options(out, resume=True))
    assert resumed.losses == straight.losses
    assert resumed.resumed_from == 5
    ends = [load_file(place / "toy.safetensors") for place in (out, tmp_path / "straight")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    # The dropout did draw numbers: without it the losses differ.
    assert train(ToyTask(), feed(clean), options(tmp_path / "plain")).losses != straight.losses


@dataclass(frozen=True)
class JudgedTask(ToyTask):
    """A `ToyTask` that gets a signal while it is judged for the `stop_at`-th time, and counts the judgements."""

    stop: StopRequest = field(default_factory=StopRequest)
    stop_at: int = 0
    judged: list[float] = field(default_factory=list)

    def judge(self, model: ToyModel, rows: ScenarioBatch | None, device: torch.device) -> Judgement:
        if len(self.judged) + 1 == self.stop_at:
            self.stop.heed(signal.SIGTERM, None)
        judgement = super().judge(model, rows, device)
        self.judged.append(judgement.figures["error"])
        return judgement


@pytest.mark.parametrize(("stop_at", "step"), [(1, 4), (3, 9)], ids=["midway", "at the end"])
def test_a_signal_ends_a_run_while_it_is_judged(clean: Connection, tmp_path: Path, stop_at: int, step: int) -> None:
    straight = train(TASK, feed(clean), options(tmp_path / "straight", 9))
    out, task = tmp_path / "toy", JudgedTask(dropout=0.3, stop_at=stop_at)
    with pytest.raises(TrainingStoppedError, match=f"stopped by SIGTERM after step {step}: `feedmill train") as stopped:
        train(task, feed(clean), options(out, 9), stop=task.stop)
    assert stopped.value.exit_status == 143
    assert len(task.judged) == stop_at - 1
    assert not (out / "training.json").exists()
    # The checkpoint of the step is complete, so the run ends as one that was not stopped.
    report = train(TASK, feed(clean), options(out, 9, resume=True))
    assert (report.losses, report.judgement) == (straight.losses, straight.judgement)
    assert json.loads((out / "training.json").read_text())["steps"] == 9


def test_a_signal_ends_a_run_while_the_model_it_begins_with_is_judged(clean: Connection, tmp_path: Path) -> None:
    train(ToyTask(), feed(clean), options(tmp_path / "first", 4))
    task = JudgedTask(stop_at=1)
    begun = options(tmp_path / "second", 4, init_from=tmp_path / "first")
    with pytest.raises(TrainingStoppedError, match="stopped by SIGTERM after step 0: nothing was learnt yet"):
        train(task, feed(clean), begun, stop=task.stop)
    assert not (tmp_path / "second" / "before.json").exists()


def test_a_model_is_judged_once_after_a_step(clean: Connection, tmp_path: Path) -> None:
    task = JudgedTask()
    report = train(task, feed(clean), options(tmp_path / "toy", 8))
    assert len(task.judged) == 2
    assert report.judgement.figures["error"] == task.judged[-1]


def test_a_toy_run_begins_with_the_weights_of_a_checkpoint(clean: Connection, tmp_path: Path) -> None:
    train(ToyTask(), feed(clean), options(tmp_path / "first", 30))
    begun = train(ToyTask(), feed(clean), options(tmp_path / "second", 1, init_from=tmp_path / "first"))
    scratch = train(ToyTask(), feed(clean), options(tmp_path / "scratch", 1))
    assert begun.steps == 1
    assert begun.resumed_from is None
    assert begun.losses[0] < 0.5 * scratch.losses[0]
    optimizer = load_file(tmp_path / "second" / "step-00000001" / "optimizer.safetensors")
    assert optimizer["step.head.weight"].item() == 1
    assert set(optimizer) == {
        f"{moment}.head.{name}"
        for moment, name in itertools.product(("step", "exp_avg", "exp_avg_sq"), ("weight", "bias"))
    }
    weights = [load_file(tmp_path / name / "toy.safetensors") for name in ("first", "second")]
    assert torch.equal(weights[0]["base.weight"], weights[1]["base.weight"])


def test_a_signal_in_the_middle_of_a_step_loses_no_batch(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    batches = [len(batch) for batch in feed(clean)]
    whole_steps = (len(batches) - 1) // 4
    left = len(batches) - 4 * whole_steps
    assert left > 0
    stop = StopRequest()

    def watch(step: Step) -> None:
        if step.number == whole_steps:
            # The next step takes the remaining batches and waits for more, so the signal arrives in its middle.
            signal.setitimer(signal.ITIMER_REAL, 1.0)

    before = signal.signal(signal.SIGALRM, stop.heed)
    try:
        with pytest.raises(TrainingStoppedError, match=f"stopped by SIGALRM after step {whole_steps}"):
            train(TASK, feed(clean, mode="follow"), options(out, 99, accumulation=4), watch, stop=stop)
    finally:
        signal.signal(signal.SIGALRM, before)
    write(clean, scenarios.valid_rows(100, first=1000), rows_per_record=32, family=FAMILY)
    report = train(TASK, feed(clean, mode="follow"), options(out, whole_steps + 1, accumulation=4, resume=True))
    assert report.rows == sum(batches) + 8 * (4 - left)


def test_a_task_and_a_feed_of_different_families_are_refused(clean: Connection, tmp_path: Path) -> None:
    write(clean, scenarios.valid_rows(1), family=FAMILY)

    class OtherFamily(ToyTask):
        family = "reduction"

    with pytest.raises(UsageError, match="the feed is of scenario, but the task trains on reduction"):
        train(OtherFamily(), feed(clean), options(tmp_path / "toy"))


def test_a_checkpoint_of_another_toy_is_refused(clean: Connection, tmp_path: Path) -> None:
    train(TASK, feed(clean), options(tmp_path / "first", 1))
    other = options(tmp_path / "second", 1, init_from=tmp_path / "first")
    with pytest.raises(UsageError, match="has 8 features, but 4 are asked for"):
        train(ToyTask(features=4), feed(clean), other)
    (tmp_path / "first" / "step-00000001" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="holds a model of type 'bert', not a toy"):
        train(TASK, feed(clean), other)


def test_the_generic_trainer_and_the_toy_import_nothing_of_reductions() -> None:
    folder = Path(str(consumers.training.__file__)).parent
    files = [*folder.glob("*.py"), Path(str(toy_task.__file__))]
    assert len(files) > 15
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert not [name for name in names if f"{name}.".startswith("consumers.reduction.")], path
