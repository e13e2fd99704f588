"""Runs of the trainer: the loss falls, the seed decides, other rows judge, budgets end, numerics agree."""

from __future__ import annotations

import itertools
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from broker.clients import Connection
from consumers.feed import Feed
from consumers.training.budget import Budget
from consumers.training.options import Execution, Optimisation
from consumers.training.report import Step
from schema.errors import FeedError, TrainingError, UsageError
from tests.consumers.span_runs import (
    every_row,
    feed,
    options,
    samples_of,
    train_spans,
)


def test_the_loss_falls_and_the_redex_is_found(clean: Connection, tmp_path: Path) -> None:
    steps: list[Step] = []
    report = train_spans(feed(clean), options(tmp_path / "model", 100, learning_rate=5e-3), steps.append)
    assert [step.number for step in steps] == list(range(1, 101))
    assert report.steps == len(report.losses) == 100
    assert report.last_loss < 0.3 * report.first_loss
    assert report.judgement.figures["exact_span"] is not None
    assert report.judgement.figures["exact_span"] > 0.5
    assert report.judgement.figures["held_out_rows"] == len(samples_of(report)) == 40
    assert report.judgement.figures["exact_span"] == sum(sample.correct for sample in samples_of(report)) / 40
    assert max(step.learning_rate for step in steps) == pytest.approx(5e-3)
    assert steps[-1].learning_rate < 1e-4
    assert 0 <= report.padding_share < 0.2
    assert report.tokens_per_s > 0


def test_the_same_seed_gives_the_same_losses(clean: Connection, tmp_path: Path) -> None:
    first = train_spans(feed(clean), options(tmp_path / "a", 8, seed=3))
    again = train_spans(feed(clean), options(tmp_path / "b", 8, seed=3))
    other = train_spans(feed(clean), options(tmp_path / "c", 8, seed=4))
    assert again.losses == first.losses
    assert samples_of(again) == samples_of(first)
    assert other.losses != first.losses


def test_held_out_terms_come_from_the_split_val_with_spans_in_characters(clean: Connection, tmp_path: Path) -> None:
    report = train_spans(feed(clean), options(tmp_path / "model", 2))
    all_rows = every_row().filter(pl.col("split") == "val")
    spans = {row["term"]: (row["span_start"], row["span_end"]) for row in all_rows.iter_rows(named=True)}
    assert all(spans[sample.term] == sample.true_span for sample in samples_of(report))


@pytest.mark.parametrize(("learnt", "judging"), [("val", "test"), ("test", "val")])
def test_a_run_is_never_judged_by_rows_that_it_learns_from(
    clean: Connection, tmp_path: Path, learnt: str, judging: str
) -> None:
    report = train_spans(
        Feed(clean, "reduction", split=learnt, batch_size=32, shuffle_seed=1), options(tmp_path / "m", 2)
    )
    every = every_row()
    wanted = set(every.filter(pl.col("split") == judging)["term"])
    assert samples_of(report)
    assert {sample.term for sample in samples_of(report)} <= wanted - set(
        every.filter(pl.col("split") == learnt)["term"]
    )


def test_a_run_that_learns_from_all_splits_is_refused(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="be judged by rows that it learns from: give the feed split='train'"):
        train_spans(Feed(clean, "reduction", split=None, batch_size=32), options(tmp_path / "m", 2))
    assert not (tmp_path / "m").exists()


def test_steps_continue_into_the_next_pass(clean: Connection, tmp_path: Path) -> None:
    batches = len(list(feed(clean)))
    report = train_spans(feed(clean), options(tmp_path / "model", batches + 3))
    assert report.steps == batches + 3


def test_a_time_limit_ends_the_training_early(clean: Connection, tmp_path: Path) -> None:
    report = train_spans(feed(clean), options(tmp_path / "model", 10_000, budget=Budget(steps=10_000, seconds=0.5)))
    assert 0 < report.steps < 10_000
    assert (report.checkpoint / "model.safetensors").exists()


def test_a_feed_without_rows_is_an_error(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no rows of split train with at most 3 tokens"):
        train_spans(feed(clean, max_tokens=3), options(tmp_path / "model", 3))
    assert list(tmp_path.rglob("step-*")) == []


def test_training_leaves_the_default_dtype_and_device_alone(clean: Connection, tmp_path: Path) -> None:
    train_spans(feed(clean), options(tmp_path / "model", 1))
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")


def test_a_loss_that_is_not_a_number_ends_the_run(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="start a new run with a lower --learning-rate"):
        train_spans(feed(clean), options(tmp_path / "model", 50, learning_rate=1e30))


def test_bfloat16_gradient_checkpoints_and_accounts_agree_with_plain_training(
    clean: Connection, tmp_path: Path
) -> None:
    plain = train_spans(feed(clean), options(tmp_path / "plain", 6))
    saving = train_spans(feed(clean), options(tmp_path / "less", 6, execution=Execution(gradient_checkpointing=True)))
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)
    half = train_spans(
        feed(clean),
        options(tmp_path / "half", 6, optimisation=Optimisation(learning_rate=2e-3, warmup_steps=30, bf16=True)),
    )
    assert half.losses == pytest.approx(plain.losses, rel=0.05)
    assert half.losses != plain.losses
    assert load_file(tmp_path / "half" / "model.safetensors")["embedding.weight"].dtype == torch.float32
    tokens = sum(batch.real_tokens for batch in itertools.islice(feed(clean), 6))
    assert plain.real_tokens == tokens
