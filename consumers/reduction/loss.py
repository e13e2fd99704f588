"""The span predictor's loss as sums over rows, which the training loop divides by the rows of a step.

`loss_sums` takes logits and their batch. Shapes: B rows, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from consumers.reduction.model import SpanLogits
from consumers.reduction.tensors import NO_SPAN, ReductionBatch

LABEL_SMOOTHING = 0.05


@dataclass(frozen=True, eq=False)
class LossSums:
    """Losses summed over rows, scalars with a gradient; an empty batch has loss 0 and gradient 0.

    Attributes:
        pointers: half the cross entropy of `start` and of `end`, over the rows with a known span.
        normal_form: binary cross entropy of the normal-form head, over all rows.
    """

    pointers: torch.Tensor
    normal_form: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """The sum that training minimises."""
        return self.pointers + self.normal_form


def loss_sums(logits: SpanLogits, batch: ReductionBatch, smoothing: float = LABEL_SMOOTHING) -> LossSums:
    """Return the losses of a batch.

    Normal forms, and rows whose span is `NO_SPAN`, have no pointer target and add nothing to the pointers' loss.

    Args:
        logits: `start` and `end` (B, T), `normal_form` (B,), of any float type; the losses are float32.
        batch: with `span` (B, 2), `is_normal_form` (B,) and `attention_mask` (B, T).
        smoothing: the share of a pointer's target that is spread evenly over the row's real positions, without padding
            (Szegedy et al., arXiv:1512.00567).
    """
    target = batch.span.masked_fill(batch.is_normal_form[:, None], NO_SPAN)
    pointers = torch.stack(
        [
            _pointer(logits.start, target[:, 0], batch.attention_mask, smoothing),
            _pointer(logits.end, target[:, 1], batch.attention_mask, smoothing),
        ]
    ).mean()
    normal_form = functional.binary_cross_entropy_with_logits(
        logits.normal_form.float(), batch.is_normal_form.float(), reduction="sum"
    )
    return LossSums(pointers, normal_form)


def _pointer(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return the smoothed cross entropy of logits (B, T) against positions (B,), summed over rows with a target."""
    log_share = functional.log_softmax(logits.float(), dim=1)
    hit = functional.nll_loss(log_share, target, ignore_index=NO_SPAN, reduction="sum")
    # torch's own smoothing spreads over all T columns, so the lowest float on padding would dominate the loss.
    spread = -log_share.where(mask, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return (1 - smoothing) * hit + smoothing * spread.where(target != NO_SPAN, 0.0).sum()
