"""The span predictor: an encoder over a term's characters, with two pointers and a normal-form head.

Blocks have three parts, each after an RMSNorm: learned counters (`consumers.reduction.counting`), scaled dot-product
attention with rotary positions (Su et al., arXiv:2104.09864) in the last blocks, and a squared-ReLU layer (So et al.,
arXiv:2109.08668). `start` and `end` point at token positions, and `normal_form` is read at `BOS`. docs/reduction.md
lists the variants that were tried. Shapes: B rows, T tokens, D hidden, H heads, E channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from consumers.reduction.alphabet import PAD, VOCABULARY_SIZE
from consumers.reduction.counting import Counter, Linear, neighbourhood, rms_norm


class SpanPredictorConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not typed here
    """Sizes of the span predictor, saved with its weights.

    Attributes:
        num_attention_layers: how many of the last blocks have attention, the costliest part for long terms.
        counter_channels: running sums of a block, half of them from the end.
    """

    model_type = "feedmill-span-predictor"

    def __init__(
        self,
        hidden_size: int = 64,
        num_hidden_layers: int = 4,
        num_attention_layers: int = 1,
        num_attention_heads: int = 1,
        head_dim: int = 32,
        counter_channels: int = 32,
        intermediate_size: int = 192,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_layers = num_attention_layers
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.counter_channels = counter_channels
        self.intermediate_size = intermediate_size
        self.rope_theta = kwargs.pop("rope_theta", 10_000.0)
        self.vocab_size = kwargs.pop("vocab_size", VOCABULARY_SIZE)
        super().__init__(**{"pad_token_id": PAD, **kwargs})


@dataclass(frozen=True, eq=False)
class SpanLogits:
    """The model's output for a batch, float32.

    Attributes:
        start: (B, T), the redex's first token; the lowest float on padding.
        end: (B, T), the token after the redex's last; the lowest float on padding.
        normal_form: (B,), the log-odds that there is no redex.
    """

    start: torch.Tensor
    end: torch.Tensor
    normal_form: torch.Tensor

    def spans(self) -> torch.Tensor:
        """Return the predicted spans (B, 2) int64 in tokens; (0, 0) if a normal form is predicted.

        Start and end are chosen together: the pair with BOS < start < end <= EOS and the highest sum. The end may be at
        EOS, because a span is half-open. A row without characters has no such pair and is a normal form.
        """
        lowest = torch.finfo(self.start.dtype).min
        column = torch.arange(self.start.shape[1], device=self.start.device)
        real = self.start > lowest
        # EOS is each row's last real token.
        last = real.sum(dim=1, keepdim=True) - 1
        start = self.start.masked_fill((column < 1) | (column >= last), -torch.inf)
        end = self.end.masked_fill((column < 2) | (column > last), -torch.inf)
        # The best start up to each token; the roll below moves it to the next token, the end.
        best, place = start.cummax(dim=1)
        both = best.roll(1, dims=1) + end
        chosen = both.argmax(dim=1, keepdim=True)
        spans = torch.cat([place.roll(1, dims=1).gather(1, chosen), chosen], dim=1)
        none = (self.normal_form > 0) | (last[:, 0] < 2)
        return spans.masked_fill(none[:, None], 0)


@dataclass(frozen=True, eq=False)
class _TokenLayout:
    """Tensors of a batch that every block needs.

    Attributes:
        real: (B, T, 1) float32, 0 on padding and 1 elsewhere.
        real_wide: (B, T, D), the same in the hidden states' type; a product of equal shapes takes half the time.
        keys: (B, 1, 1, T) bool, the tokens that may be attended to.
        turn: (2, T, E / 2), cosines and sines of the rotary angles.
    """

    real: torch.Tensor
    real_wide: torch.Tensor
    keys: torch.Tensor
    turn: torch.Tensor


class _Attention(nn.Module):
    def __init__(self, config: SpanPredictorConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.num_attention_heads, config.head_dim
        inner = config.num_attention_heads * config.head_dim
        self.query_key_value = Linear(config.hidden_size, 3 * inner)
        self.mix = Linear(inner, config.hidden_size, gain=_gain(config))

    def forward(self, hidden: torch.Tensor, layout: _TokenLayout) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        rows, length, _ = hidden.shape
        shaped = self.query_key_value(hidden).view(rows, length, 3, self.heads, self.head_dim)
        query, key, value = shaped.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, E)
        attended = functional.scaled_dot_product_attention(
            _rotate(query, layout.turn), _rotate(key, layout.turn), value, attn_mask=layout.keys
        )
        return self.mix(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _rotate(values: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Rotate pairs (i, i + half) of the last axis of (B, H, T, E) by the angles of their positions."""
    first, second = values.chunk(2, dim=-1)
    cosine, sine = turn.to(values.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _gain(config: SpanPredictorConfig) -> float:
    """Return the first gain of the parts that add to the hidden states; it keeps the size of the hidden states."""
    return float((2 * config.num_hidden_layers) ** -0.5)


class _Block(GradientCheckpointingLayer):  # type: ignore[misc]  # transformers is not typed here
    def __init__(self, config: SpanPredictorConfig, *, attends: bool) -> None:
        super().__init__()
        self.counter = Counter(config.hidden_size, config.counter_channels, _gain(config))
        self.attention = _Attention(config) if attends else None
        self.up = Linear(config.hidden_size, config.intermediate_size, first_bias=0.0)
        self.down = Linear(config.intermediate_size, config.hidden_size, gain=_gain(config))

    def forward(self, hidden: torch.Tensor, layout: _TokenLayout) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        hidden = hidden + self.counter(rms_norm(hidden) * layout.real_wide, layout.real)
        if self.attention is not None:
            hidden = hidden + self.attention(rms_norm(hidden), layout)
        return hidden + self.down(functional.relu(self.up(rms_norm(hidden))).square())  # type: ignore[no-any-return]


class SpanPredictor(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed here
    """Points at the leftmost-outermost redex of a term, or predicts a normal form.

    Under autocast the hidden states have its type, and running sums and logits stay float32. Padding changes a row's
    logits by rounding at most. The model has no dropout or other randomness, because rows hardly ever repeat.
    """

    config_class = SpanPredictorConfig
    main_input_name = "tokens"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: SpanPredictorConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=PAD)
        first_to_attend = config.num_hidden_layers - config.num_attention_layers
        self.blocks = nn.ModuleList(
            _Block(config, attends=number >= first_to_attend) for number in range(config.num_hidden_layers)
        )
        # At first all positions are nearly equal, and the odds of a normal form are even.
        self.pointers = Linear(3 * config.hidden_size, 2, gain=0.1, first_bias=0.0)
        self.normal_form = Linear(config.hidden_size, 1, gain=0.0, first_bias=0.0)
        self.post_init()

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor) -> SpanLogits:
        """tokens (B, T) int64 and attention_mask (B, T) bool, true on real tokens -> logits. B may be 0, T may not."""
        hidden = self.embedding(tokens)
        device = hidden.device.type
        if torch.is_autocast_enabled(device):
            hidden = hidden.to(torch.get_autocast_dtype(device))
        layout = self._layout(attention_mask, hidden)
        for block in self.blocks:
            hidden = block(hidden, layout)
        hidden = rms_norm(hidden)
        # The neighbours matter because the span ends one token after the one where the counts balance.
        pointers = self.pointers(neighbourhood(hidden * layout.real_wide)).float()
        pointers = pointers.masked_fill(~attention_mask[..., None], torch.finfo(torch.float32).min)
        return SpanLogits(pointers[..., 0], pointers[..., 1], self.normal_form(hidden[:, 0])[:, 0].float())

    def _layout(self, attention_mask: torch.Tensor, hidden: torch.Tensor) -> _TokenLayout:
        real = attention_mask[..., None]
        half = self.config.head_dim // 2
        pace = self.config.rope_theta ** (-torch.arange(half, device=hidden.device, dtype=torch.float32) / half)
        angle = torch.arange(hidden.shape[1], device=hidden.device, dtype=torch.float32)[:, None] * pace
        return _TokenLayout(
            real=real.float(),
            real_wide=real.to(hidden.dtype).expand_as(hidden).contiguous(),
            keys=attention_mask[:, None, None, :],
            turn=torch.stack([angle.cos(), angle.sin()]),
        )

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Linear):
            nn.init.normal_(module.weight, std=module.gain * module.in_features**-0.5)
            if module.first_bias is not None:
                nn.init.constant_(module.bias, module.first_bias)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
            with torch.no_grad():
                module.weight[PAD].zero_()
