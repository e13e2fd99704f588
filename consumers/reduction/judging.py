"""Held-out rows that judge a span predictor during and after training.

`HeldOut` draws rows once, from a split that the run does not learn from. `judge` gives metrics by band, and every row
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

# The split that judges a run, by the split that the run learns from; the two always differ.
_JUDGED_BY = {"train": "val", "test": "val", "val": "test"}

# Rows are drawn from a window this many times their number, because neighbours in a topic come from one trace.
_WINDOW = 8
# Rows times longest row in one pass through the model: 16,384 keeps attention's matrices within a few dozen MB.
_PASS_TOKENS = 16_384


@dataclass(frozen=True)
class Judgement:
    """A model's metrics on held-out rows (`SpanMetrics.summary`), and the rows with predictions, in drawn order."""

    metrics: dict[str, Any]
    samples: list[Sample]


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of similar length: tensors as in `ReductionBatch`, and `drawn` (B,), their places among all rows."""

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
        UsageError: the run learns from all splits, so no held-out row is left.
    """
    if split is None:
        raise UsageError(
            "the feed has split None, so the run would be judged by rows that it learns from: "
            "give the feed split='train'"
        )
    return _JUDGED_BY[split]


class HeldOut:
    """Rows of another split from the sources of a training feed, within its limits: see `judging_split`.

    Args:
        feed: the training feed.
        rows: number of rows; fewer if the split has fewer.
        seed: seed of the draw.
        state: of an earlier `HeldOut`, for the same rows; None draws from the topic as it is now.

    Attributes:
        state: small and JSON-able; with the same seed and number it gives the same rows again.

    Raises:
        UsageError: the feed reads all splits.
        FeedError: the topic no longer holds the offsets of `state`.
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
        """Return the model's metrics on the held-out rows; the model's training mode is restored."""
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
    """Cut a batch into parts of rows of similar length; rows with an unknown true span are left out."""
    lengths = batch.attention_mask.sum(dim=1)
    lengths, order = torch.where(batch.span[:, 0] == NO_SPAN, 0, lengths).sort(stable=True)
    start = int((lengths == 0).sum())
    while start < len(order):
        # Lengths ascend, so the first row gives the most rows of a pass; fewer fit if later rows are longer.
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
