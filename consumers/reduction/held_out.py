"""Held-out rows by which a span predictor is judged while it trains, and after.

`HeldOut` draws rows once, of a split that the run does not learn from. `judge` gives metrics by band, and every row
with its prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from consumers.feed import Feed, FeedOptions
from consumers.reduction.metrics import SpanMetrics
from consumers.reduction.model import SpanPredictor
from consumers.reduction.samples import Sample, character_span
from consumers.reduction.tensors import NO_SPAN, ReductionBatch, decode_tokens
from schema.errors import UsageError

# Which split judges a run, by the split that it learns from: never one that it learns from.
_JUDGED_BY = {"train": "val", "test": "val", "val": "test"}

# Rows are drawn from a window this many times their number, for neighbours in a topic are of one trace.
_WINDOW = 8
# Rows times longest row to one pass through the model: 16,384 keep attention's squares within a few dozen MB.
_PASS_TOKENS = 16_384


@dataclass(frozen=True)
class Judgement:
    """What a model makes of held-out rows: `SpanMetrics.summary`, and the rows as they were drawn."""

    metrics: dict[str, Any]
    samples: list[Sample]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of similar length: tensors as in `ReductionBatch`, and `drawn` (B,), their places among all."""

    tokens: torch.Tensor
    attention_mask: torch.Tensor
    span: torch.Tensor
    is_normal_form: torch.Tensor
    size: torch.Tensor
    depth: torch.Tensor
    drawn: torch.Tensor


def judging_split(split: str | None) -> str:
    """Return the split whose rows judge a run that learns from `split`: val, or test for a run that learns from val.

    Raises:
        UsageError: the run learns from all splits, so no row is left to judge it by.
    """
    if split is None:
        raise UsageError(
            "the run would learn from all splits and be judged by rows that it learns from: give the feed split='train'"
        )
    return _JUDGED_BY[split]


class HeldOut:
    """Rows of another split from the sources of a training feed, within its limits: see `judging_split`.

    Args:
        feed: the training feed.
        rows: how many, or all there are.
        seed: draws them.
        state: of an earlier `HeldOut`, for the same rows; None draws from what the topic holds now.

    Attributes:
        state: small and JSON-able; with the same seed and number it gives the same rows again.

    Raises:
        UsageError: the feed reads all splits.
        FeedError: the topic no longer holds what `state` tells of.
    """

    def __init__(self, feed: Feed, rows: int, seed: int, state: dict[str, Any] | None = None) -> None:
        drawn = Feed(
            feed.connection,
            feed.family.name,
            split=judging_split(feed.split),
            batch_size=rows,
            shuffle_seed=seed,
            options=FeedOptions(
                sources=feed.options.sources,
                where=feed.options.where,
                max_tokens=feed.max_tokens,
                window_rows=rows * _WINDOW,
            ),
        )
        if state is not None:
            drawn.load_state_dict(state)
        self.state = drawn.state_dict()
        batch = next(cast(Iterator[ReductionBatch], iter(drawn)), None)
        self._rows = [] if batch is None else list(_by_length(batch))

    def judge(self, model: SpanPredictor, device: torch.device, *, bf16: bool) -> Judgement:
        """Return how good the model's predictions are; the model is left in training mode if it was."""
        metrics = SpanMetrics()
        samples: dict[int, Sample] = {}
        was_training = model.training
        model.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for rows in self._rows:
                predicted = model(rows.tokens.to(device), rows.attention_mask.to(device)).spans().cpu()
                metrics.add(predicted, rows.span, rows.is_normal_form, rows.size, rows.depth)
                samples.update(zip(rows.drawn.tolist(), _samples(rows.tokens, rows.span, predicted), strict=True))
        model.train(was_training)
        return Judgement(metrics.summary(), [samples[place] for place in sorted(samples)])


def _by_length(batch: ReductionBatch) -> Iterator[_Rows]:
    """Cut a batch into rows of similar length; rows whose true span is not known are left out."""
    lengths = batch.attention_mask.sum(dim=1)
    lengths, order = torch.where(batch.span[:, 0] == NO_SPAN, 0, lengths).sort(stable=True)
    start = int((lengths == 0).sum())
    while start < len(order):
        # The longest that a pass may reach is found from its shortest: lengths only grow from there.
        most = max(1, _PASS_TOKENS // int(lengths[start]))
        while most > 1 and most * int(lengths[min(start + most, len(order)) - 1]) > _PASS_TOKENS:
            most -= 1
        taken = order[start : start + most]
        width = int(lengths[min(start + most, len(order)) - 1])
        yield _Rows(
            tokens=batch.tokens[taken, :width],
            attention_mask=batch.attention_mask[taken, :width],
            span=batch.span[taken],
            is_normal_form=batch.is_normal_form[taken],
            size=batch.size[taken],
            depth=batch.depth[taken],
            drawn=taken,
        )
        start += most


def _samples(tokens: torch.Tensor, true: torch.Tensor, predicted: torch.Tensor) -> Iterator[Sample]:
    for row, span, guess in zip(tokens, true.tolist(), predicted.tolist(), strict=True):
        yield Sample(decode_tokens(row), character_span(span), character_span(guess))
