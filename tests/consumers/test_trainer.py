from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.reduction.model import SpanPredictor
from consumers.reduction.tensors import ReductionBatch
from consumers.reduction.trainer import Step, TrainOptions, predict, train
from schema.errors import FeedError
from tests import reductions
from tests.consumers.records import write

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def normal_forms(count: int) -> pl.DataFrame:
    forms = ["\\." * (1 + number % 40) + "0" * (1 + number // 40) for number in range(count)]
    return reductions.frame(
        [
            reductions.row(number, term=form, trace_id=f"n{number}", step_k=1, span_start=0, span_end=0)
            for number, form in enumerate(forms)
        ]
    )


@pytest.fixture
def clean(connection: Connection) -> Connection:
    write(connection, pl.concat([reductions.valid(1000), normal_forms(100)]), rows_per_record=128)
    return connection


def feed(connection: Connection, **options: int) -> Feed:
    return Feed(
        connection,
        "reduction",
        batch_size=32,
        shuffle_seed=1,
        options=FeedOptions(bucket=True, **options),  # type: ignore[arg-type]
    )


def options(out: Path, steps: int, **others: float) -> TrainOptions:
    return TrainOptions(out=out, steps=steps, held_out_rows=40, model=SMALL, **others)  # type: ignore[arg-type]


def test_the_loss_falls_and_the_redex_is_found(clean: Connection, tmp_path: Path) -> None:
    steps: list[Step] = []
    report = train(feed(clean), options(tmp_path / "model", 100, learning_rate=5e-3), steps.append)
    assert [step.number for step in steps] == list(range(1, 101))
    assert report.steps == len(report.losses) == 100
    assert report.last_loss < 0.3 * report.first_loss
    assert report.exact_span is not None
    assert report.exact_span > 0.5
    assert report.held_out_rows == len(report.samples) == 40
    assert report.exact_span == sum(sample.correct for sample in report.samples) / 40
    assert max(step.learning_rate for step in steps) == pytest.approx(5e-3)
    assert steps[-1].learning_rate < 1e-4
    assert 0 <= report.padding_share < 0.2
    assert report.tokens_per_s > 0


def test_the_same_seed_gives_the_same_losses(clean: Connection, tmp_path: Path) -> None:
    first = train(feed(clean), options(tmp_path / "a", 8, seed=3))
    again = train(feed(clean), options(tmp_path / "b", 8, seed=3))
    other = train(feed(clean), options(tmp_path / "c", 8, seed=4))
    assert again.losses == first.losses
    assert again.samples == first.samples
    assert other.losses != first.losses


def test_held_out_terms_are_of_the_split_val_in_characters(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 2))
    made = pl.concat([reductions.valid(1000), normal_forms(100)]).filter(pl.col("split") == "val")
    spans = {row["term"]: (row["span_start"], row["span_end"]) for row in made.iter_rows(named=True)}
    assert all(spans[sample.term] == sample.true_span for sample in report.samples)


def test_a_checkpoint_predicts_as_the_model_did(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 5))
    loaded = SpanPredictor.from_pretrained(report.checkpoint)
    (samples,) = [
        predict(loaded, [batch])
        for batch in Feed(clean, "reduction", split="val", batch_size=1000)
        if isinstance(batch, ReductionBatch)
    ]
    known = {sample.term: sample for sample in samples}
    assert all(known[sample.term] == sample for sample in report.samples)


def test_a_checkpoint_names_its_data_and_replaces_the_earlier_one(clean: Connection, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "stale").write_text("")
    used = feed(clean, max_tokens=60)
    report = train(used, options(tmp_path / "model", 3))
    told = json.loads((tmp_path / "model" / "training.json").read_text())
    assert told["topic"] == used.topic
    assert told["offsets"] == {str(number): list(bounds) for number, bounds in used.offsets.items()}
    assert (told["steps"], told["max_tokens"], told["batch_size"]) == (3, 60, 32)
    assert told["too_long"] == report.too_long > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert "stale" not in [path.name for path in (tmp_path / "model").iterdir()]


def test_steps_go_on_into_the_next_pass(clean: Connection, tmp_path: Path) -> None:
    batches = len(list(feed(clean)))
    report = train(feed(clean), options(tmp_path / "model", batches + 3))
    assert report.steps == batches + 3


def test_a_time_limit_ends_the_training_early(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 10_000, time_limit_s=0.5))
    assert 0 < report.steps < 10_000
    assert (report.checkpoint / "model.safetensors").exists()


def test_a_feed_without_rows_is_told(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no rows of split train with at most 3 tokens"):
        train(feed(clean, max_tokens=3), options(tmp_path / "model", 3))
    assert list(tmp_path.glob("*model*")) == []


def test_training_leaves_the_default_dtype_and_device_alone(clean: Connection, tmp_path: Path) -> None:
    train(feed(clean), options(tmp_path / "model", 1))
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
