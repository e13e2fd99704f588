"""The training task of the span predictor: everything that the generic training loop must know about it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from consumers.reduction.judging import judge
from consumers.reduction.loss import LABEL_SMOOTHING, loss_sums
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.saved_model import CONFIG, WEIGHTS, load_config, save_model
from consumers.reduction.tensors import ReductionBatch
from consumers.training.task import Forward, Judgement
from schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ReductionTask:
    """Trains a span predictor; a row of a batch has weight 1. The members are those of `TrainTask`.

    Attributes:
        sizes: of the model, by the names of `SpanPredictorConfig`; the others are its defaults, or a checkpoint's.
        label_smoothing: see `consumers.reduction.loss`.
    """

    sizes: Mapping[str, Any] = field(default_factory=dict)
    label_smoothing: float = LABEL_SMOOTHING

    family = "reduction"
    # With these two, a folder is a model for `SpanPredictor.from_pretrained`.
    model_files = (CONFIG, WEIGHTS)

    def build(self, checkpoint: Path | None) -> SpanPredictor:
        """Return a model of the task's sizes, or of the checkpoint's, with weights drawn at random."""
        if checkpoint is None:
            return SpanPredictor(SpanPredictorConfig(**self.sizes))
        config = load_config(checkpoint)
        for name, size in self.sizes.items():
            if (saved := getattr(config, name)) != size:
                raise UsageError(
                    f"the checkpoint {checkpoint} holds a model with {name} {saved}, but {size} is asked for: "
                    "leave the size out, or start a new run without the checkpoint"
                )
        return SpanPredictor(config)

    def trainable(self, model: SpanPredictor) -> dict[str, nn.Parameter]:
        """Return all parameters."""
        return dict(model.named_parameters())

    def settings(self, model: SpanPredictor) -> dict[str, Any]:
        """Return the label smoothing, and the model's sizes."""
        named = inspect.signature(SpanPredictorConfig.__init__).parameters
        sizes = {name: getattr(model.config, name) for name in named if name not in ("self", "kwargs")}
        return {"label_smoothing": self.label_smoothing, "model": sizes}

    def weight(self, batch: ReductionBatch) -> float:
        """Return the number of rows."""
        return len(batch)

    def loss_sum(self, forward: Forward, batch: ReductionBatch) -> torch.Tensor:
        """Return the losses of both pointers and of the normal-form head, summed over rows."""
        return loss_sums(forward(batch.tokens, batch.attention_mask), batch, self.label_smoothing).total

    def judge(self, model: SpanPredictor, rows: ReductionBatch | None, device: torch.device) -> Judgement:
        """Return the metrics of `consumers.reduction.judging`."""
        return judge(model, rows, device)

    def save_model(self, model: SpanPredictor, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        save_model(model, folder)

    def load_model(self, model: SpanPredictor, folder: Path) -> None:
        """Load model.safetensors."""
        model.load_state_dict(load_file(folder / WEIGHTS))
