"""The span predictor's training loop: from a feed to a checkpoint, on a CPU.

`train` takes a `Feed` of the reduction family and gives a `TrainReport`. The same feed offsets, options and seed give
the same losses on the same machine.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch.nn.utils import clip_grad_norm_
from transformers import get_cosine_schedule_with_warmup
from transformers.utils.logging import disable_progress_bar

from consumers.feed import Feed, FeedOptions
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.samples import NORMAL_FORM, Sample, Span
from consumers.reduction.tensors import ReductionBatch, decode_tokens
from schema.errors import FeedError

# Losses are told as the mean over this many steps: one batch's loss is mostly its own difficulty.
_SMOOTHING_STEPS = 20
# Held-out rows are drawn from a window this many times their number, for neighbours in a topic are of one trace.
_HELD_OUT_WINDOW = 8


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How to train.

    Attributes:
        out: the checkpoint's folder; one of that name is replaced.
        steps: optimizer steps.
        time_limit_s: end earlier, after this long; what was learnt is kept.
        seed: of the weights and of the choice of held-out rows.
        learning_rate: the highest, reached after `warmup_steps` and then lowered to 0 along a cosine.
        weight_decay: of AdamW.
        clip_norm: the largest norm of the gradient.
        held_out_rows: rows of the split `val` to judge by.
        model: sizes, by the names of `SpanPredictorConfig`.
    """

    out: Path
    steps: int = 300
    time_limit_s: float | None = None
    seed: int = 0
    learning_rate: float = 2e-3
    warmup_steps: int = 30
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    held_out_rows: int = 256
    model: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One optimizer step, as told to `on_step`: number from 1, loss, learning rate, norm of the gradient unclipped."""

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_s: float


@dataclass(frozen=True)
class TrainReport:
    """What came of it.

    Attributes:
        steps, elapsed_s: taken, without start-up and evaluation.
        first_loss, last_loss: means over the first and last steps (20, or a quarter of them all if that is fewer).
        exact_span: share of the held-out rows whose span, or normal form, is predicted exactly; None without such rows.
        held_out_rows: rows that share is of.
        tokens_per_s: real tokens, from the attention mask.
        padding_share: of all tokens that went through the model.
        too_long: rows left out so far for exceeding the feed's `max_tokens`.
        checkpoint: the folder with safetensors weights, sizes, and `training.json`.
        losses: of every step.
        samples: held-out terms with predictions.
    """

    steps: int
    elapsed_s: float
    first_loss: float
    last_loss: float
    exact_span: float | None
    held_out_rows: int
    tokens_per_s: float
    padding_share: float
    too_long: int
    checkpoint: Path
    losses: list[float]
    samples: list[Sample]


def train(feed: Feed, options: TrainOptions, on_step: Callable[[Step], None] = lambda step: None) -> TrainReport:
    """Train a span predictor from scratch on `feed` and write its checkpoint.

    Raises:
        FeedError: the feed has no rows, or fails while it is read.
    """
    torch.manual_seed(options.seed)
    model = SpanPredictor(SpanPredictorConfig(**options.model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(options.warmup_steps, options.steps // 4), options.steps)
    losses: list[float] = []
    real = padded = too_long = 0
    started = time.perf_counter()
    elapsed_s = 0.0
    for batch in itertools.islice(_passes(feed), options.steps):
        loss = model(batch.tokens, batch.attention_mask).loss(batch.span, batch.is_normal_form)
        loss.backward()
        norm = clip_grad_norm_(model.parameters(), options.clip_norm)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)

        losses.append(loss.item())
        real, padded, too_long = real + batch.real_tokens, padded + batch.tokens.numel(), batch.too_long
        elapsed_s = time.perf_counter() - started
        on_step(Step(len(losses), losses[-1], rate, norm.item(), real / elapsed_s))
        if options.time_limit_s is not None and elapsed_s >= options.time_limit_s:
            break

    samples = predict(model, _held_out(feed, options))[: options.held_out_rows]
    span = max(1, min(_SMOOTHING_STEPS, len(losses) // 4))
    report = TrainReport(
        steps=len(losses),
        elapsed_s=elapsed_s,
        first_loss=sum(losses[:span]) / span,
        last_loss=sum(losses[-span:]) / span,
        exact_span=sum(sample.correct for sample in samples) / len(samples) if samples else None,
        held_out_rows=len(samples),
        tokens_per_s=real / elapsed_s,
        padding_share=1 - real / padded,
        too_long=too_long,
        checkpoint=options.out,
        losses=losses,
        samples=samples,
    )
    _save(model, feed, options, report)
    return report


def predict(model: SpanPredictor, batches: Iterator[ReductionBatch] | list[ReductionBatch]) -> list[Sample]:
    """Return every row of `batches` with the model's prediction, spans in characters."""
    model.eval()
    samples = []
    with torch.inference_mode():
        for batch in batches:
            predicted = model(batch.tokens, batch.attention_mask).spans()
            for tokens, true, guess in zip(batch.tokens, batch.span.tolist(), predicted.tolist(), strict=True):
                samples.append(Sample(decode_tokens(tokens), _characters(true), _characters(guess)))
    return samples


def _characters(span: list[int]) -> Span:
    """Return a span of tokens as one of characters: both ends lie one back, for BOS stands before the first."""
    return NORMAL_FORM if span == [0, 0] else (span[0] - 1, span[1] - 1)


def _passes(feed: Feed) -> Iterator[ReductionBatch]:
    """Yield the batches of pass after pass."""
    for epoch in itertools.count():
        feed.set_epoch(epoch)
        some = False
        for batch in feed:
            some = True
            yield cast(ReductionBatch, batch)
        if not some:
            raise FeedError(
                f"{feed.topic} has no rows of split {feed.split} with at most {feed.max_tokens} tokens: "
                "produce more, or raise the limit"
            )


def _held_out(feed: Feed, options: TrainOptions) -> list[ReductionBatch]:
    """Return batches with at least `held_out_rows` rows of the split `val`, or all there are, drawn by the seed."""
    rows = options.held_out_rows
    held_out = Feed(
        feed.connection,
        feed.family.name,
        split="val",
        batch_size=min(feed.batch_size, rows),
        shuffle_seed=options.seed,
        options=FeedOptions(max_tokens=feed.max_tokens, window_rows=rows * _HELD_OUT_WINDOW),
    )
    batches = cast(Iterator[ReductionBatch], iter(held_out))
    taken: list[ReductionBatch] = []
    while sum(map(len, taken)) < rows and (batch := next(batches, None)) is not None:
        taken.append(batch)
    return taken


def _save(model: SpanPredictor, feed: Feed, options: TrainOptions, report: TrainReport) -> None:
    """Write the checkpoint beside its place and move it there whole."""
    out = options.out
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (out.with_name(f".{out.name}.{os.getpid()}.{state}") for state in ("new", "old"))
    # Its bar for a file of a few megabytes would break into ours.
    disable_progress_bar()
    try:
        model.save_pretrained(fresh)
        told = asdict(replace(report, losses=[], samples=[]))
        training = {
            "feedmill": version("feedmill"),
            "topic": feed.topic,
            "offsets": feed.offsets,
            "split": feed.split,
            "seed": options.seed,
            "shuffle_seed": feed.shuffle_seed,
            "batch_size": feed.batch_size,
            "max_tokens": feed.max_tokens,
            **{name: value for name, value in told.items() if name not in ("losses", "samples", "checkpoint")},
        }
        (fresh / "training.json").write_text(json.dumps(training, indent=2) + "\n")
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
