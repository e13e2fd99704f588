"""Types and limits of a checkpoint's config.json and trainer.json, checked before use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from consumers.training.budget import Budget
from consumers.training.report import Counters

# Far above the sizes of any span predictor, and low enough that computing a model's shapes takes no time.
_Size = Annotated[int, Field(ge=1, le=1 << 16, strict=True)]
_Layers = Annotated[int, Field(ge=0, le=256, strict=True)]


class SavedSizes(BaseModel):
    """The sizes of a span predictor, as in `SpanPredictorConfig`; other keys of config.json are ignored."""

    hidden_size: _Size = 1
    num_hidden_layers: _Layers = 0
    num_attention_layers: _Layers = 0
    num_attention_heads: _Size = 1
    head_dim: _Size = 1
    counter_channels: _Size = 1
    intermediate_size: _Size = 1
    rope_theta: Annotated[float, Field(gt=0, le=1e12)] = 1.0


class SavedSettings(BaseModel):
    """The settings that a resumed run takes over unless it sets others."""

    mode: Literal["snapshot", "follow"]
    split: str | None
    batch_size: int | None
    batch_tokens: int | None
    max_tokens: int
    seed: int
    learning_rate: float
    bf16: bool
    curriculum: list[tuple[float, int]]


class SavedRun(BaseModel):
    """The required keys of trainer.json; the feeds check their own states."""

    counters: Counters
    settings: SavedSettings
    budget: Budget
    lessons: list[dict[str, Any]]
    feed: dict[str, Any]
    held_out: dict[str, Any]
    random: str
