"""Counting along a term: a layer that learns running sums, and the normalisation around it.

To find where a bracket closes, a model must count. Attention over rotary positions learns that slowly, and fails beyond
the lengths it was trained on (Bhattamishra et al., arXiv:2009.11264). A `Counter` is a recurrence that can count; the
model learns the quantities to count. At every token, each channel adds a learned number between -1 and 1, read from the
token and its two neighbours. Saturating features of several widths read the running sums. The cost is linear in the
length. Counting relative to the content, not by position, is the idea of contextual position encoding (Golovneva et
al., arXiv:2405.18719). Weiss et al. (arXiv:1805.04908) show that counter machines suffice for such tasks.

Shapes: B rows, T tokens, D hidden, K channels, F features a channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

# A feature is tanh(slope * count + shift). The first two change at -0.5 and 0.5, so that together they separate 0 from
# -1 and 1. The flat ones grade counts up to about 50; learning starts from them.
_SLOPES = (2.0, 2.0, 1.0, 0.3, 0.1, 0.03)
_SHIFTS = (1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
# Bias of both halves of an increment. It makes the first increments differences of two small numbers; otherwise the
# first sums over a long term would lie where every feature is flat.
_FIRST_BIAS = -2.0
_LEAST_NORM = 1e-5


class _RmsNorm(torch.autograd.Function):
    """Forward and backward pass of `rms_norm`."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        size: torch.Tensor = torch.linalg.vector_norm(values, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (size * values.shape[-1] ** -0.5).clamp_(min=_LEAST_NORM).reciprocal_().to(values.dtype)
        normed: torch.Tensor = values * scale
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        normed, scale = ctx.saved_tensors
        (gradient,) = gradients
        along = torch.linalg.vecdot(gradient, normed)[..., None] / normed.shape[-1]
        return torch.addcmul(gradient, normed, along, value=-1).mul_(scale)


def rms_norm(values: torch.Tensor) -> torch.Tensor:
    """Return values (..., D) divided by their root mean square (Zhang and Sennrich, arXiv:1910.07467), without weights.

    The next matrix can learn the weights. The gradient is written out because torch's own takes nine passes over the
    values on a CPU and is six times as slow.
    """
    return _RmsNorm.apply(values)  # type: ignore[no-any-return]


def neighbourhood(values: torch.Tensor) -> torch.Tensor:
    """Return (B, T, 3D): the values of the token before, the token and the token after; zeros beyond the ends."""
    length = values.shape[1]
    wide = functional.pad(values, (0, 0, 1, 1))
    return torch.cat([wide[:, :length], values, wide[:, 2:]], dim=-1)


class _CountFeatures(torch.autograd.Function):
    """Forward and backward pass of `count_features`, because torch's own gradient takes three times as long."""

    @staticmethod
    def forward(ctx: Any, halves: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        up, down = halves.sigmoid().chunk(2, dim=-1)
        onward, back = ((up - down) * real).chunk(2, dim=-1)
        counts = torch.cat([onward.cumsum(1), _sum_from_end(back)], dim=-1)
        slopes = counts.new_tensor(_SLOPES)[:, None]
        features = torch.tanh(torch.addcmul(counts.new_tensor(_SHIFTS)[:, None], counts[:, :, None], slopes))
        ctx.save_for_backward(up, down, features, real)
        return features.flatten(2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        up, down, features, real = ctx.saved_tensors
        gradient = gradients[0].view(features.shape)
        inner = torch.addcmul(gradient, gradient * features, features, value=-1)
        of_counts = (inner * inner.new_tensor(_SLOPES)[:, None]).sum(dim=2)
        onward, back = of_counts.chunk(2, dim=-1)
        step = torch.cat([_sum_from_end(onward), back.cumsum(1)], dim=-1) * real
        return torch.cat([step * (up - up * up), step * (down * down - down)], dim=-1), None


def count_features(halves: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return tanh features (B, T, F * K) of K running sums, the first K / 2 from the start, the others from the end.

    The increment of a channel is the difference of two logistic functions, which saturates at exactly 1, 0 and -1.
    Sums are float32, because bfloat16 cannot count beyond 256.

    Args:
        halves: (B, T, 2K) float32, the inputs of the two functions; K is even.
        real: (B, T, 1) float32, 0 on padding and 1 elsewhere. Padding adds nothing.
    """
    return _CountFeatures.apply(halves, real)  # type: ignore[no-any-return]


def _sum_from_end(values: torch.Tensor) -> torch.Tensor:
    """Return for each token the sum of its own and all later values, (B, T, K)."""
    sums = values.cumsum(1)
    return values - sums + sums[:, -1:]


class Linear(nn.Linear):
    """A linear layer that stores how the model initialises it.

    Args:
        gain: factor of the first weights; 1 keeps the size of the inputs.
        first_bias: the first bias; None for a layer without bias.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, first_bias: float | None = None) -> None:
        super().__init__(inputs, outputs, bias=first_bias is not None)
        self.gain = gain
        self.first_bias = first_bias


class Counter(nn.Module):
    """Learned counters, (B, T, D) -> (B, T, D), to add to the hidden states.

    Args:
        width: D.
        channels: K, even.
        gain: factor of the output layer's first weights.
    """

    def __init__(self, width: int, channels: int, gain: float) -> None:
        super().__init__()
        self.halves = Linear(3 * width, 2 * channels, first_bias=_FIRST_BIAS)
        self.read = Linear(len(_SLOPES) * channels, width, gain=gain)

    def forward(self, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """hidden (B, T, D) with zeros on padding, real (B, T, 1) float32 -> (B, T, D)."""
        features = count_features(self.halves(neighbourhood(hidden)).float(), real)
        return self.read(features.to(hidden.dtype))  # type: ignore[no-any-return]
