"""The span predictor: an encoder over a term's characters, with two pointers and a normal-form head.

Pre-norm transformer with rotary positions (Su et al., arXiv:2104.09864), RMSNorm, SwiGLU and scaled dot-product
attention. `start` and `end` point at token positions, `normal_form` is read at `BOS`. Shapes: B rows, T tokens,
D hidden, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel

from consumers.reduction.tensors import PAD, VOCABULARY_SIZE

# Targets with this value cost nothing: padding and normal forms.
IGNORED = -100


class SpanPredictorConfig(PretrainedConfig):  # type: ignore[misc]  # transformers is not typed here
    """Sizes of the span predictor; saved beside its weights."""

    model_type = "feedmill-span-predictor"

    def __init__(
        self,
        hidden_size: int = 128,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 4,
        intermediate_size: int = 344,
        rope_theta: float = 10_000.0,
        vocab_size: int = VOCABULARY_SIZE,
        **kwargs: Any,
    ) -> None:
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.rope_theta = rope_theta
        self.vocab_size = vocab_size
        super().__init__(**{"pad_token_id": PAD, **kwargs})


@dataclass(frozen=True, eq=False)
class SpanLogits:
    """What the model says of a batch.

    Attributes:
        start: (B, T) float, the redex's first token; the lowest float on padding.
        end: (B, T) float, the token after the redex's last; the lowest float on padding.
        normal_form: (B,) float, the log-odds that there is no redex.
    """

    start: torch.Tensor
    end: torch.Tensor
    normal_form: torch.Tensor

    def loss(self, span: torch.Tensor, is_normal_form: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar: cross entropy of both pointers, plus that of the normal-form head.

        Args:
            span: (B, 2) int64 token positions; those of normal forms are not looked at.
            is_normal_form: (B,) bool.
        """
        target = span.masked_fill(is_normal_form[:, None], IGNORED)
        # A batch of normal forms only has nothing to point at: 0, where the mean over no rows would be NaN.
        rows = (~is_normal_form).sum().clamp(min=1)
        pointers = torch.stack(
            [
                functional.cross_entropy(logits, target[:, side], ignore_index=IGNORED, reduction="sum") / rows
                for side, logits in enumerate((self.start, self.end))
            ]
        ).mean()
        return pointers + functional.binary_cross_entropy_with_logits(self.normal_form, is_normal_form.float())

    def spans(self) -> torch.Tensor:
        """Return the predicted spans (B, 2) int64 in tokens, start < end; (0, 0) where a normal form is predicted."""
        start = self.start.argmax(dim=1)
        before = torch.arange(self.end.shape[1], device=start.device) <= start[:, None]
        lowest = torch.finfo(self.end.dtype).min
        end = self.end.masked_fill(before, lowest).argmax(dim=1)
        return torch.stack([start, end], dim=1).masked_fill((self.normal_form > 0)[:, None], 0)


class _Block(nn.Module):
    def __init__(self, config: SpanPredictorConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.attention_norm = nn.RMSNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.feed_norm = nn.RMSNorm(width)
        self.gate_and_up = nn.Linear(width, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(self, hidden: torch.Tensor, turn: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """hidden (B, T, D), turn (2, T, D/H/2), mask (B, 1, 1, T) bool -> (B, T, D)."""
        rows, length, width = hidden.shape
        shaped = self.query_key_value(self.attention_norm(hidden)).view(rows, length, 3, self.heads, -1)
        query, key, value = shaped.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D/H)
        attended = functional.scaled_dot_product_attention(
            _rotate(query, turn), _rotate(key, turn), value, attn_mask=mask
        )
        hidden = hidden + self.mix(attended.transpose(1, 2).reshape(rows, length, width))
        gate, up = self.gate_and_up(self.feed_norm(hidden)).chunk(2, dim=-1)
        return hidden + self.down(functional.silu(gate) * up)  # type: ignore[no-any-return]


def _rotate(values: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn pairs (i, i + half) of the last axis of (B, H, T, D/H) by the angles of their positions."""
    first, second = values.chunk(2, dim=-1)
    cosine, sine = turn[0], turn[1]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class SpanPredictor(PreTrainedModel):  # type: ignore[misc]  # transformers is not typed here
    """Points at the leftmost-outermost redex of a term, or says that there is none."""

    config_class = SpanPredictorConfig
    main_input_name = "tokens"
    _supports_sdpa = True

    def __init__(self, config: SpanPredictorConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=PAD)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size)
        self.pointers = nn.Linear(config.hidden_size, 2)
        self.normal_form = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(self, tokens: torch.Tensor, attention_mask: torch.Tensor) -> SpanLogits:
        """tokens (B, T) int64 and attention_mask (B, T) bool, true on real tokens -> logits."""
        hidden = self.embedding(tokens)
        turn = self._turn(tokens.shape[1], hidden)
        mask = attention_mask[:, None, None, :]
        for block in self.blocks:
            hidden = block(hidden, turn, mask)
        hidden = self.norm(hidden)
        pointers = self.pointers(hidden).masked_fill(~attention_mask[..., None], torch.finfo(hidden.dtype).min)
        return SpanLogits(pointers[..., 0], pointers[..., 1], self.normal_form(hidden[:, 0])[:, 0])

    def _turn(self, length: int, like: torch.Tensor) -> torch.Tensor:
        """Return cosines and sines of the rotary angles, (2, T, D/H/2)."""
        half = self.config.hidden_size // self.config.num_attention_heads // 2
        pace = self.config.rope_theta ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
        angle = torch.arange(length, device=like.device, dtype=torch.float32)[:, None] * pace
        return torch.stack([angle.cos(), angle.sin()]).to(like.dtype)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding):
            with torch.no_grad():
                module.weight[PAD].zero_()
        if isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)
