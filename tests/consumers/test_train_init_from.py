"""`init_from`: a new run with the weights of a checkpoint, a fresh optimizer, and the topic as it is now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.reduction.judging import judge
from consumers.reduction.loss import loss_sums
from consumers.reduction.saved_model import load_model
from consumers.reduction.tensors import ReductionBatch
from consumers.training.held_out import HeldOut
from consumers.training.loss_log import read_losses
from consumers.training.old_rows import newer_and_older, sources_of
from consumers.training.options import Saving
from consumers.training.report import TrainReport
from consumers.training.run import saved_choices, train
from schema.errors import CheckpointError, TrainingStoppedError, UsageError
from schema.scenario import FAMILY as SCENARIO
from tests import reductions, scenarios
from tests.broker.recreation import create_again
from tests.consumers.records import topic, write
from tests.consumers.span_runs import SMALL, feed, options, resumed, stopped_after, train_spans
from tests.consumers.toy_task import ToyTask


@pytest.fixture
def first(clean: Connection, tmp_path: Path) -> Path:
    """The folder of a finished run of four steps."""
    train_spans(feed(clean), options(tmp_path / "first", 4))
    return tmp_path / "first"


def begun(connection: Connection, init_from: Path, out: Path, steps: int = 3, **named: Any) -> TrainReport:
    saving = Saving(out=out, init_from=init_from)
    return train_spans(feed(connection), options(out, steps, saving=saving), **named)


def trainer(run: Path, step: int) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / f"step-{step:08d}" / "trainer.json").read_text())
    return values


def test_the_first_step_has_the_weights_of_the_checkpoint_and_the_optimizer_is_new(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    report = begun(clean, first, tmp_path / "second")
    batch = next(iter(feed(clean)))
    assert isinstance(batch, ReductionBatch)
    with torch.inference_mode():
        loss = loss_sums(load_model(first)(batch.tokens, batch.attention_mask), batch).total / len(batch)
    assert report.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    assert (report.steps, report.resumed_from) == (3, None)
    assert [line["step"] for line in read_losses(tmp_path / "second")] == [1, 2, 3]
    optimizer = load_file(tmp_path / "second" / "step-00000003" / "optimizer.safetensors")
    assert optimizer["step.embedding.weight"].item() == 3
    assert trainer(tmp_path / "second", 3)["counters"]["rows"] == report.rows


def offsets_end(run: Path) -> int:
    """The sum of the end offsets of a finished run's snapshot."""
    (partitions,) = json.loads((run / "training.json").read_text())["offsets"].values()
    return sum(end for _, end in partitions.values())


def test_the_run_reads_rows_that_arrived_after_the_checkpoint(clean: Connection, first: Path, tmp_path: Path) -> None:
    write(clean, reductions.valid(300, first=5000))
    begun(clean, first, tmp_path / "second")
    assert offsets_end(tmp_path / "second") > offsets_end(first)
    train_spans(feed(clean), options(first, 6, saving=resumed(first)))
    assert trainer(first, 6)["feed"]["spec"]["sources"] == trainer(first, 4)["feed"]["spec"]["sources"]


def test_a_stopped_run_resumes_exactly_and_keeps_its_ancestors(clean: Connection, first: Path, tmp_path: Path) -> None:
    straight = begun(clean, first, tmp_path / "straight", 8)
    out = tmp_path / "second"
    stop, watch = stopped_after(3)
    with pytest.raises(TrainingStoppedError):
        train_spans(feed(clean), options(out, 8, saving=Saving(out=out, init_from=first)), watch, stop=stop)
    report = train_spans(feed(clean), options(out, 8, saving=resumed(out)))
    assert report.losses == straight.losses
    assert trainer(out, 8)["ancestors"] == [
        {"checkpoint": str(first / "step-00000004"), "feed": trainer(first, 4)["feed"]}
    ]
    begun(clean, out, tmp_path / "third", 1)
    names = [ancestor["checkpoint"] for ancestor in trainer(tmp_path / "third", 1)["ancestors"]]
    assert names == [str(first / "step-00000004"), str(out / "step-00000008")]


def test_a_model_without_a_run_can_be_begun_with_and_its_training_data_is_unknown(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model").mkdir(exist_ok=True)
        shutil.copy(first / name, tmp_path / "model" / name)
    begun(clean, tmp_path / "model", tmp_path / "second", 1)
    assert trainer(tmp_path / "second", 1)["ancestors"] == [{"checkpoint": str(tmp_path / "model"), "feed": None}]


def test_resume_and_init_from_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--resume continues the run in .*, and --init-from .*: give one of them$"):
        Saving(out=tmp_path, resume=True, init_from=tmp_path / "first")


def test_a_checkpoint_of_another_shape_is_refused_with_both_sizes(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    line = "first/step-00000004 holds a model with hidden_size 32, but 64 is asked for"
    with pytest.raises(UsageError, match=line):
        begun(clean, first, tmp_path / "second", sizes={**SMALL, "hidden_size": 64})
    # Without a size the model takes the checkpoint's.
    assert begun(clean, first, tmp_path / "second", 1, sizes={}).steps == 1
    assert trainer(tmp_path / "second", 1)["settings"]["model"]["hidden_size"] == 32
    weights = load_file(first / "step-00000004" / "model.safetensors")
    save_file({**weights, "embedding.weight": torch.zeros(3, 3)}, first / "step-00000004" / "model.safetensors")
    with pytest.raises(CheckpointError, match="step-00000004 cannot be read"):
        begun(clean, first, tmp_path / "third")


def test_a_checkpoint_of_another_model_or_family_is_refused_by_name(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    write(clean, scenarios.valid_rows(64), family=SCENARIO)
    toy = Feed(clean, "scenario", batch_size=8, shuffle_seed=1, options=FeedOptions())
    train(ToyTask(), toy, options(tmp_path / "toy", 1))
    line = "toy/step-00000001 was trained on the family 'scenario', but this run trains on 'reduction': give"
    with pytest.raises(UsageError, match=line):
        begun(clean, tmp_path / "toy", tmp_path / "second")
    (first / "step-00000004" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"config.json is of a model of type 'bert'"):
        begun(clean, first, tmp_path / "second")


def test_a_checkpoint_that_learned_from_the_judging_rows_is_refused(clean: Connection, tmp_path: Path) -> None:
    val = Feed(clean, "reduction", split="val", batch_size=8, shuffle_seed=1)
    train_spans(val, options(tmp_path / "first", 1))
    with pytest.raises(UsageError, match="was trained on the split val, which holds the rows that judge this run"):
        begun(clean, tmp_path / "first", tmp_path / "second")


def test_a_refused_checkpoint_leaves_the_run_that_it_would_replace(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    train_spans(feed(clean), options(old, 2))
    (first / "step-00000004" / "config.json").write_text('{"model_type": "bert"}')
    for init_from, error in ((first, CheckpointError), (tmp_path / "absent", CheckpointError), (old, UsageError)):
        with pytest.raises(error):
            train_spans(feed(clean), options(old, 1, saving=Saving(out=old, init_from=init_from, replace=True)))
        assert [path.name for path in old.glob("step-*")] == ["step-00000002"]
        assert (old / "training.json").exists()
        assert len(read_losses(old)) == 2


def test_a_run_on_newer_rows_takes_a_share_of_old_ones_and_is_judged_before_and_after(
    clean: Connection, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="arrived since"):
        newer_and_older(clean, first, 0.2)
    newer = reductions.valid(300, first=5000)
    write(clean, newer)
    sources = newer_and_older(clean, first, 0.2)
    mixed = Feed(clean, "reduction", batch_size=20, shuffle_seed=1, options=FeedOptions(sources=sources))
    new_ids = set(newer["example_id"].cast(pl.Int64, wrap_numerical=True).to_list())
    taken = [number for batch in mixed for number in batch.example_id.tolist()]
    found = [number in new_ids for number in taken]
    # Every newer row of the split once, and a fifth of older rows beside them.
    assert sum(found) == newer.filter(pl.col("split") == "train").height
    assert 1 - sum(found) / len(found) == pytest.approx(0.2, abs=0.02)
    out = tmp_path / "second"
    stop, watch = stopped_after(2)
    with pytest.raises(TrainingStoppedError):
        train_spans(
            feed(clean, sources=sources), options(out, 4, saving=Saving(out=out, init_from=first)), watch, stop=stop
        )
    saved = saved_choices(out)["sources"]
    assert [(weight, repeat) for _, weight, repeat in saved] == [(0.8, False), (0.2, True)]
    report = train_spans(feed(clean, sources=sources_of(saved)), options(out, 4, saving=resumed(out)))
    # The same rows judge the first model and the last one.
    assert report.before is not None
    assert report.before["held_out_rows"] == report.judgement.figures["held_out_rows"] > 0
    rows = HeldOut(feed(clean, sources=sources), 40, 0).batch
    assert isinstance(rows, ReductionBatch)
    with torch.inference_mode():
        assert report.before == judge(load_model(first), rows, torch.device("cpu")).figures
    assert json.loads((out / "training.json").read_text())["before"] == report.before
    # A new run from the seed has no model before it.
    assert json.loads((first / "training.json").read_text())["before"] is None


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_of_old_rows_is_above_0_and_below_1(clean: Connection, first: Path, share: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        newer_and_older(clean, first, share)


def test_old_rows_of_a_topic_that_was_created_again_are_refused(clean: Connection, first: Path) -> None:
    create_again(clean, topic(clean))
    with pytest.raises(UsageError, match="was created again since"):
        newer_and_older(clean, first, 0.5)
