from __future__ import annotations

import itertools
import json
import resource
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from broker.clients import Connection
from consumers.feed import Feed, FeedOptions
from consumers.reduction.model import SpanPredictor
from consumers.reduction.samples import Sample, character_span
from consumers.reduction.tensors import ReductionBatch, decode_tokens
from consumers.training.budget import Budget
from consumers.training.checkpoint import load_model
from consumers.training.loss_log import read_losses
from consumers.training.options import CurriculumStage, Execution, Judging, Optimisation, Saving, TrainOptions
from consumers.training.report import Step, TrainReport
from consumers.training.run import train
from consumers.training.stopping import StopRequest
from schema.errors import CheckpointError, FeedError, TrainingError, TrainingStoppedError, UsageError
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


def options(out: Path, steps: int, *, learning_rate: float = 2e-3, **others: Any) -> TrainOptions:
    settings: dict[str, Any] = {
        "saving": Saving(out=out),
        "budget": Budget(steps=steps),
        "optimisation": Optimisation(learning_rate=learning_rate, warmup_steps=30),
        "judging": Judging(rows=40),
        "model": SMALL,
        **others,
    }
    return TrainOptions(**settings)


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


def test_held_out_terms_come_from_the_split_val_with_spans_in_characters(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 2))
    all_rows = pl.concat([reductions.valid(1000), normal_forms(100)]).filter(pl.col("split") == "val")
    spans = {row["term"]: (row["span_start"], row["span_end"]) for row in all_rows.iter_rows(named=True)}
    assert all(spans[sample.term] == sample.true_span for sample in report.samples)


@pytest.mark.parametrize(("learnt", "judging"), [("val", "test"), ("test", "val")])
def test_a_run_is_never_judged_by_rows_that_it_learns_from(
    clean: Connection, tmp_path: Path, learnt: str, judging: str
) -> None:
    report = train(Feed(clean, "reduction", split=learnt, batch_size=32, shuffle_seed=1), options(tmp_path / "m", 2))
    every = pl.concat([reductions.valid(1000), normal_forms(100)])
    wanted = set(every.filter(pl.col("split") == judging)["term"])
    assert report.samples
    assert {sample.term for sample in report.samples} <= wanted - set(every.filter(pl.col("split") == learnt)["term"])


def test_a_run_that_learns_from_all_splits_is_refused(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="be judged by rows that it learns from: give the feed split='train'"):
        train(Feed(clean, "reduction", split=None, batch_size=32), options(tmp_path / "m", 2))
    assert not (tmp_path / "m").exists()


def test_a_checkpoint_predicts_as_the_model_did(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 5))
    batches = [
        batch for batch in Feed(clean, "reduction", split="val", batch_size=1000) if isinstance(batch, ReductionBatch)
    ]
    for loaded in (SpanPredictor.from_pretrained(report.checkpoint), load_model(report.checkpoint)):
        known = {sample.term: sample for sample in predict(loaded, batches)}
        assert all(known[sample.term] == sample for sample in report.samples)


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
    report = train(used, options(tmp_path / "model", 3))
    saved = json.loads((tmp_path / "model" / "training.json").read_text())
    assert saved["topics"] == list(used.topics)
    assert saved["offsets"] == {
        topic: {str(number): list(bounds) for number, bounds in offsets.items()}
        for topic, offsets in used.offsets.items()
    }
    assert (saved["steps"], saved["max_tokens"], saved["batch_size"], saved["learning_rate"]) == (3, 60, 32, 2e-3)
    assert saved["too_long"] == report.too_long > 0
    assert saved["held_out"]["rows"] == report.held_out_rows
    assert saved["rows"] == report.rows == sum(counts)
    assert saved["checkpoint"] == "step-00000003"
    checkpoint = tmp_path / "model" / "step-00000003"
    assert json.loads((checkpoint / "manifest.json").read_text()) == used.manifest()
    assert json.loads((checkpoint / "trainer.json").read_text())["feed"] == used.state_dict()


def test_no_file_of_a_checkpoint_is_a_pickle(clean: Connection, tmp_path: Path) -> None:
    train(feed(clean), options(tmp_path / "model", 2))
    files = [path for path in (tmp_path / "model" / "step-00000002").iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len(files) == 5


def test_a_run_is_overwritten_only_on_request(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    before = train(feed(clean), options(out, 3))
    with pytest.raises(UsageError, match=r"holds a run with step-00000003: continue it with --resume, .* --replace"):
        train(feed(clean), options(out, 2))
    assert json.loads((out / "training.json").read_text())["steps"] == before.steps
    after = train(feed(clean), options(out, 2, saving=Saving(out=out, replace=True)))
    assert [path.name for path in out.glob("step-*")] == ["step-00000002"]
    assert [line["loss"] for line in read_losses(out)] == after.losses
    assert len(after.losses) == 2


def test_steps_continue_into_the_next_pass(clean: Connection, tmp_path: Path) -> None:
    batches = len(list(feed(clean)))
    report = train(feed(clean), options(tmp_path / "model", batches + 3))
    assert report.steps == batches + 3


def test_a_time_limit_ends_the_training_early(clean: Connection, tmp_path: Path) -> None:
    report = train(feed(clean), options(tmp_path / "model", 10_000, budget=Budget(steps=10_000, seconds=0.5)))
    assert 0 < report.steps < 10_000
    assert (report.checkpoint / "model.safetensors").exists()


def test_a_feed_without_rows_is_an_error(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="no rows of split train with at most 3 tokens"):
        train(feed(clean, max_tokens=3), options(tmp_path / "model", 3))
    assert list(tmp_path.rglob("step-*")) == []


def test_training_leaves_the_default_dtype_and_device_alone(clean: Connection, tmp_path: Path) -> None:
    train(feed(clean), options(tmp_path / "model", 1))
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")


def stopped_after(step: int, number: signal.Signals = signal.SIGTERM) -> tuple[StopRequest, Callable[[Step], None]]:
    """A stop request, and a callback that makes the request after `step`."""
    stop = StopRequest()

    def watch(done: Step) -> None:
        if done.number == step:
            stop.heed(number, None)

    return stop, watch


def resumed(out: Path) -> Saving:
    return Saving(out=out, resume=True, every_steps=4)


def test_a_run_stopped_and_resumed_three_times_learns_the_same(clean: Connection, tmp_path: Path) -> None:
    straight = train(feed(clean), options(tmp_path / "straight", 60))
    out = tmp_path / "model"
    saving = Saving(out=out, every_steps=4)
    batches = len(list(feed(clean)))
    # In the first pass, at its very end, and in the second pass.
    for step in (7, batches, batches + 5):
        stop, watch = stopped_after(step)
        with pytest.raises(TrainingStoppedError, match=rf"stopped by SIGTERM after step {step}: .* --resume"):
            train(feed(clean), options(out, 60, saving=saving), watch, stop=stop)
        assert load_model(out / f"step-{step:08d}") is not None
        saving = resumed(out)
    report = train(feed(clean), options(out, 60, saving=saving))
    assert report.losses == straight.losses
    assert report.resumed_from == batches + 5
    assert (report.rows, report.real_tokens, report.steps) == (straight.rows, straight.real_tokens, 60)
    assert report.held_out == straight.held_out
    ends = [load_file(place / "step-00000060" / "model.safetensors") for place in (out, tmp_path / "straight")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_stages_of_short_terms_come_first_and_resume_anywhere(clean: Connection, tmp_path: Path) -> None:
    def taught(out: Path, *, stop_after: int | None = None, resume: bool = False) -> TrainReport:
        stop, watch = stopped_after(stop_after) if stop_after else (None, lambda step: seen.append(step))
        stages = [CurriculumStage(feed(clean, max_tokens=40), 0.3), CurriculumStage(feed(clean, max_tokens=70), 0.6)]
        saving = Saving(out=out, resume=resume)
        return train(feed(clean), options(out, 30, saving=saving), watch, before=stages, stop=stop)

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
        train(feed(clean), options(out, 30, saving=resumed(out)))


def test_steps_after_the_checkpoint_are_taken_again(clean: Connection, tmp_path: Path) -> None:
    straight = train(feed(clean), options(tmp_path / "straight", 20))
    out = tmp_path / "model"

    class Killed(BaseException):
        pass

    def kill(step: Step) -> None:
        if step.number == 11:
            raise Killed

    with pytest.raises(Killed):
        train(feed(clean), options(out, 20, saving=Saving(out=out, every_steps=4)), kill)
    assert len(read_losses(out)) == 11
    report = train(feed(clean), options(out, 20, saving=resumed(out)))
    assert report.resumed_from == 8
    assert report.losses == straight.losses
    assert [line["step"] for line in read_losses(out)] == list(range(1, 21))


def test_a_finished_run_is_resumed_with_more_steps(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    first = train(feed(clean), options(out, 5))
    same = train(feed(clean), options(out, 5, saving=resumed(out)))
    assert same.losses == first.losses
    assert same.held_out == first.held_out
    more = train(feed(clean), options(out, 9, saving=resumed(out)))
    assert more.losses[:5] == first.losses
    assert more.steps == 9
    assert json.loads((out / "training.json").read_text())["steps"] == 9


def test_a_resumed_run_sees_its_snapshot_and_held_out_rows_after_new_rows_arrived(
    clean: Connection, tmp_path: Path
) -> None:
    straight = train(feed(clean), options(tmp_path / "straight", 40))
    out = tmp_path / "model"
    stop, watch = stopped_after(9)
    with pytest.raises(TrainingStoppedError):
        train(feed(clean), options(out, 40), watch, stop=stop)
    write(clean, reductions.valid(300, first=5000))
    report = train(feed(clean), options(out, 40, saving=resumed(out)))
    assert report.losses == straight.losses
    assert report.held_out == straight.held_out


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
            train(following(), options(out, len(rows) + 2), watch, stop=stop)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == list(range(1, len(rows) + 1))
    write(clean, reductions.valid(200, first=5000))
    report = train(following(), options(out, len(rows) + 2, saving=resumed(out)))
    assert report.steps == len(rows) + 2
    assert report.rows == sum(rows) + 64


def test_a_resume_without_a_checkpoint_is_refused(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint to resume: train without --resume"):
        train(feed(clean), options(tmp_path / "model", 3, saving=resumed(tmp_path / "model")))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 5}, "seed 0, but 5 is asked for"),
        ({"learning_rate": 1e-3}, "learning_rate 0.002, but 0.001 is asked for"),
        ({"model": {**SMALL, "hidden_size": 64}}, "hidden_size 32, but 64 is asked for"),
    ],
)
def test_a_resume_with_another_option_names_both_values(
    clean: Connection, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    out = tmp_path / "model"
    train(feed(clean), options(out, 2))
    with pytest.raises(UsageError, match=line):
        train(feed(clean), options(out, 4, saving=resumed(out), **changes))


def test_a_resume_with_another_feed_names_both_values(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train(feed(clean), options(out, 2))
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
            train(other, options(out, 4, saving=resumed(out)))


def test_a_damaged_checkpoint_is_refused(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    train(feed(clean), options(out, 2))
    (out / "step-00000002" / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000002 cannot be read .* use an earlier checkpoint"):
        train(feed(clean), options(out, 4, saving=resumed(out)))


@pytest.mark.parametrize("limit_bytes", [500, 3_000, 40_000])
def test_a_full_disk_ends_a_run_in_one_line_and_leaves_no_parts(
    clean: Connection, tmp_path: Path, limit_bytes: int
) -> None:
    out = tmp_path / "model"
    train(feed(clean), options(out, 2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on file sizes acts like a full disk for this process: on TensorBoard's file, the loss log, the weights.
    # An error in a thread that nobody handles fails the test.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises(CheckpointError, match="make room") as refused:
            train(feed(clean), options(out, 60, saving=resumed(out)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(refused.value)
    assert not [path.name for path in out.rglob("*") if path.name.endswith((".part", ".old"))]
    assert load_model(out / "step-00000002") is not None
    assert train(feed(clean), options(out, 4, saving=resumed(out))).resumed_from == 2


def test_a_loss_that_is_not_a_number_ends_the_run(clean: Connection, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="start a new run with a lower --learning-rate"):
        train(feed(clean), options(tmp_path / "model", 50, learning_rate=1e30))


def test_tensorboard_has_scalars_by_step_and_marked_terms(clean: Connection, tmp_path: Path) -> None:
    out = tmp_path / "model"
    stop, watch = stopped_after(5)
    every = {"judging": Judging(rows=40, every_steps=3)}
    with pytest.raises(TrainingStoppedError):
        train(feed(clean), options(out, 9, **every), watch, stop=stop)
    report = train(feed(clean), options(out, 9, saving=resumed(out), **every))
    shown = EventAccumulator(str(out / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    shown.Reload()
    losses = shown.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, 10))
    assert [event.value for event in losses] == pytest.approx(report.losses)
    for name in ("learning_rate", "gradient_norm", "real_tokens_per_s", "padding_share"):
        assert [event.step for event in shown.Scalars(f"train/{name}")] == list(range(1, 10))
    assert [event.step for event in shown.Scalars("held_out/exact_span")] == [3, 6, 9, 9]
    assert shown.Scalars("held_out/exact_span")[-1].value == pytest.approx(report.exact_span)
    assert "held_out/iou" in shown.Tags()["scalars"]
    assert any(tag.startswith("held_out_by_size/") for tag in shown.Tags()["scalars"])
    (text,) = shown.Tensors("held_out/0/text_summary")[-1].tensor_proto.string_val
    # A long term is broken into lines, with its marks between them.
    shown_term = "".join(line.strip() for line in text.decode().splitlines()[::2])
    assert report.samples[0].term in shown_term


def test_bfloat16_gradient_checkpoints_and_accounts_agree_with_plain_training(
    clean: Connection, tmp_path: Path
) -> None:
    plain = train(feed(clean), options(tmp_path / "plain", 6))
    saving = train(feed(clean), options(tmp_path / "less", 6, execution=Execution(gradient_checkpointing=True)))
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)
    half = train(
        feed(clean),
        options(tmp_path / "half", 6, optimisation=Optimisation(learning_rate=2e-3, warmup_steps=30, bf16=True)),
    )
    assert half.losses == pytest.approx(plain.losses, rel=0.05)
    assert half.losses != plain.losses
    assert load_file(tmp_path / "half" / "model.safetensors")["embedding.weight"].dtype == torch.float32
    tokens = sum(batch.real_tokens for batch in itertools.islice(feed(clean), 6))
    assert plain.real_tokens == tokens
