"""What a run leaves on disk: checkpoints, reports, TensorBoard, and nothing half-written."""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from broker.clients import Connection
from consumers.feed import Feed
from consumers.reduction.model import SpanPredictor
from consumers.reduction.samples import Sample, character_span
from consumers.reduction.saved_model import load_model
from consumers.reduction.tensors import ReductionBatch, decode_tokens
from consumers.training.loss_log import LossLog, read_losses
from consumers.training.options import Judging, Saving
from consumers.training.recorder import _place
from schema.errors import CheckpointError, TrainingStoppedError, UsageError
from tests.consumers.span_runs import (
    feed,
    options,
    resumed,
    samples_of,
    stopped_after,
    train_spans,
)


def test_a_checkpoint_predicts_as_the_model_did(clean: Connection, tmp_path: Path) -> None:
    report = train_spans(feed(clean), options(tmp_path / "model", 5))
    batches = [
        batch for batch in Feed(clean, "reduction", split="val", batch_size=1000) if isinstance(batch, ReductionBatch)
    ]
    for loaded in (SpanPredictor.from_pretrained(report.checkpoint), load_model(report.checkpoint)):
        known = {sample.term: sample for sample in predict(loaded, batches)}
        assert all(known[sample.term] == sample for sample in samples_of(report))


def test_a_file_that_a_killed_run_left_unfinished_is_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [tmp_path / f".{name}.{dead.pid}.part" for name in ("model.safetensors", "losses.jsonl")]
    for file in left:
        file.touch()
    _place(tmp_path / "model.safetensors", b"weights")
    LossLog(tmp_path, 0).close()
    assert not any(file.exists() for file in left)


def predict(model: SpanPredictor, batches: Iterable[ReductionBatch]) -> list[Sample]:
    """Every row of `batches` with the model's prediction, row by row."""
    model.eval()
    with torch.inference_mode():
        return [
            Sample(decode_tokens(tokens), character_span(true), character_span(guess))
            for batch in batches
            for tokens, true, guess in zip(
                batch.tokens,
                batch.span.tolist(),
                model(batch.tokens, batch.attention_mask).spans().tolist(),
                strict=True,
            )
        ]


def test_the_report_of_a_run_has_its_data_and_figures(clean: Connection, tmp_path: Path) -> None:
    used = feed(clean, max_tokens=60)
    counts = [batch.global_rows for batch in itertools.islice(feed(clean, max_tokens=60), 3)]
    report = train_spans(used, options(tmp_path / "model", 3))
    saved = json.loads((tmp_path / "model" / "training.json").read_text())
    assert saved["topics"] == list(used.topics)
    assert saved["offsets"] == {
        topic: {str(number): list(bounds) for number, bounds in offsets.items()}
        for topic, offsets in used.offsets.items()
    }
    assert (saved["steps"], saved["max_tokens"], saved["batch_size"], saved["learning_rate"]) == (3, 60, 32, 2e-3)
    assert saved["too_long"] == report.too_long > 0
    assert saved["held_out"]["rows"] == report.judgement.figures["held_out_rows"]
    assert saved["rows"] == report.rows == sum(counts)
    assert saved["checkpoint"] == "step-00000003"
    checkpoint = tmp_path / "model" / "step-00000003"
    assert json.loads((checkpoint / "manifest.json").read_text()) == used.manifest()
    assert json.loads((checkpoint / "trainer.json").read_text())["feed"] == used.state_dict()


def test_no_file_of_a_checkpoint_is_a_pickle(clean: Connection, tmp_path: Path) -> None:
    train_spans(feed(clean), options(tmp_path / "model", 2))
    files = [path for path in (tmp_path / "model" / "step-00000002").iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len(files) == 5


@pytest.mark.parametrize("limit_bytes", [500, 3_000, 40_000])
def test_a_full_disk_ends_a_run_in_one_line_and_leaves_no_parts(
    clean: Connection, tmp_path: Path, limit_bytes: int
) -> None:
    out = tmp_path / "model"
    train_spans(feed(clean), options(out, 2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on file sizes acts like a full disk for this process: on TensorBoard's file, the loss log, the weights.
    # An error in a thread that nobody handles fails the test.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises(CheckpointError, match="make room") as refused:
            train_spans(feed(clean), options(out, 60, saving=resumed(out)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(refused.value)
    assert not [path.name for path in out.rglob("*") if path.name.endswith((".part", ".old"))]
    assert load_model(out / "step-00000002") is not None
    assert train_spans(feed(clean), options(out, 4, saving=resumed(out))).resumed_from == 2


def test_tensorboard_has_scalars_by_step_and_marked_terms(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    stop, watch = stopped_after(5)
    every = {"judging": Judging(rows=40, every_steps=3)}
    with pytest.raises(TrainingStoppedError):
        train_spans(feed(clean), options(out, 9, **every), watch, stop=stop)
    report = train_spans(feed(clean), options(out, 9, saving=resumed(out), **every))
    shown = EventAccumulator(str(out / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    shown.Reload()
    losses = shown.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, 10))
    assert [event.value for event in losses] == pytest.approx(report.losses)
    for name in ("learning_rate", "gradient_norm", "real_tokens_per_s", "padding_share"):
        assert [event.step for event in shown.Scalars(f"train/{name}")] == list(range(1, 10))
    assert [event.step for event in shown.Scalars("held_out/exact_span")] == [3, 6, 9]
    assert shown.Scalars("held_out/exact_span")[-1].value == pytest.approx(report.judgement.figures["exact_span"])
    assert "held_out/iou" in shown.Tags()["scalars"]
    assert any(tag.startswith("held_out_by_size/") for tag in shown.Tags()["scalars"])
    (text,) = shown.Tensors("held_out/0/text_summary")[-1].tensor_proto.string_val
    # A long term is broken into lines, with its marks between them.
    shown_term = "".join(line.strip() for line in text.decode().splitlines()[::2])
    assert samples_of(report)[0].term in shown_term


def test_a_run_is_overwritten_only_on_request(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    before = train_spans(feed(clean), options(out, 3))
    with pytest.raises(UsageError, match=r"holds a run with step-00000003: continue it with --resume, .* --replace"):
        train_spans(feed(clean), options(out, 2))
    assert json.loads((out / "training.json").read_text())["steps"] == before.steps
    after = train_spans(feed(clean), options(out, 2, saving=Saving(out=out, replace=True)))
    assert [path.name for path in out.glob("step-*")] == ["step-00000002"]
    assert [line["loss"] for line in read_losses(out)] == after.losses
    assert len(after.losses) == 2
