"""Judge a span predictor on held-out rows: metrics by band, and every row with its prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from consumers.reduction.metrics import SpanMetrics
from consumers.reduction.model import SpanPredictor
from consumers.reduction.samples import Sample, character_span, render_sample
from consumers.reduction.tensors import NO_SPAN, ReductionBatch, decode_tokens
from consumers.training.task import Judgement

# Rows times longest row in one pass through the model: 16,384 keeps attention's matrices within a few dozen MB.
_PASS_TOKENS = 16_384
# Samples that TensorBoard shows.
_SHOWN_SAMPLES = 10


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


def judge(model: SpanPredictor, batch: ReductionBatch | None, device: torch.device) -> Judgement:
    """Return the model's metrics on held-out rows, and the rows with predictions as samples, in the batch's order.

    The figures are `exact_span` (the share of rows whose span or normal form is predicted exactly, None without rows),
    `held_out_rows` and `held_out` (`SpanMetrics.summary`). A sample has the fields of `Sample`.

    Args:
        model: in evaluation mode, on `device`.
        batch: all rows, on the CPU; None for no rows.
        device: of the model.
    """
    metrics = SpanMetrics()
    samples: dict[int, Sample] = {}
    for rows in [] if batch is None else _by_length(batch):
        predicted = model(rows.tokens.to(device), rows.attention_mask.to(device)).spans().cpu()
        metrics.add(predicted, rows.span, rows.is_normal_form, rows.size, rows.depth)
        samples.update(zip(rows.drawn.tolist(), _samples(rows.tokens, rows.span, predicted), strict=True))
    summary, drawn = metrics.summary(), [samples[place] for place in sorted(samples)]
    figures = {"exact_span": summary["exact_span"], "held_out_rows": summary["rows"], "held_out": summary}
    return Judgement(figures, [asdict(sample) for sample in drawn], _scalars(summary), _texts(drawn))


def _scalars(summary: dict[str, Any]) -> dict[str, float | None]:
    """Return the metrics for TensorBoard by tag, overall and by band."""
    scalars = {f"held_out/{name}": summary[name] for name in ("exact_span", "iou")}
    scalars |= {f"held_out/normal_form_{name}": summary["normal_form"][name] for name in ("precision", "recall")}
    for axis in ("size", "depth"):
        for band in summary[f"by_{axis}"]:
            for name in ("exact_span", "iou", "nf_precision", "nf_recall"):
                scalars[f"held_out_by_{axis}/{band['band']}/{name}"] = band[name]
    return scalars


def _texts(samples: list[Sample]) -> dict[str, str]:
    """Return the first samples for TensorBoard by tag, as terms with marked spans."""
    texts = {}
    for number, sample in enumerate(samples[:_SHOWN_SAMPLES]):
        marked = render_sample(sample.term, sample.true_span, sample.predicted_span).plain
        # Indented by four, the text is code in Markdown, so backslashes stay.
        texts[f"held_out/{number}"] = "\n".join(f"    {line}" for line in marked.splitlines())
    return texts


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
