"""A tiny training task that has nothing to do with reductions: a linear model of a scenario's support needed.

As in a language model, a loss has the weight of its target tokens (here, the tokens of the response), some weights are
frozen, and dropout draws random numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from consumers.batches import Position
from consumers.scenario.tensors import ScenarioBatch
from consumers.sequence.cursor import Cursor
from consumers.training.task import Forward, Judgement
from schema.errors import CheckpointError, UsageError

INPUTS = 2


class ToyModel(nn.Module):
    """Frozen random features of two numbers, and a trained linear layer: (B, 2) -> (B,)."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.base = nn.Linear(INPUTS, features)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(features, 1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(torch.tanh(self.base(numbers))))[:, 0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ToyTask:
    """Trains a `ToyModel`; members as in `TrainTask`."""

    features: int = 8
    dropout: float = 0.0

    family = "scenario"
    model_files = ("config.json", "toy.safetensors")

    def build(self, checkpoint: Path | None) -> ToyModel:
        if checkpoint is not None:
            saved = json.loads((checkpoint / "config.json").read_text())
            if saved.get("model_type") != "toy":
                raise CheckpointError(f"{checkpoint} holds a model of type {saved.get('model_type')!r}, not a toy")
            if saved["features"] != self.features:
                raise UsageError(f"{checkpoint} has {saved['features']} features, but {self.features} are asked for")
        return ToyModel(self.features, self.dropout)

    def trainable(self, model: ToyModel) -> dict[str, nn.Parameter]:
        return {f"head.{name}": weight for name, weight in model.head.named_parameters()}

    def settings(self, model: ToyModel) -> dict[str, Any]:
        return {"features": self.features, "dropout": self.dropout}

    def weight(self, batch: ScenarioBatch) -> float:
        return int(batch.response_mask.sum())

    def loss_sum(self, forward: Forward, batch: ScenarioBatch) -> torch.Tensor:
        wrong: torch.Tensor = forward(inputs(batch)) - batch.support_needed
        return (wrong.square() * batch.response_mask.sum(dim=1)).sum()

    def judge(self, model: ToyModel, rows: ScenarioBatch | None, device: torch.device) -> Judgement:
        if rows is None:
            return Judgement({"error": None})
        error = (model(inputs(rows)) - rows.support_needed).abs().mean().item()
        return Judgement({"error": error}, scalars={"held_out/error": error})

    def save_model(self, model: ToyModel, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps({"model_type": "toy", "features": self.features}))
        save_file(model.state_dict(), folder / "toy.safetensors")

    def load_model(self, model: ToyModel, folder: Path) -> None:
        model.load_state_dict(load_file(folder / "toy.safetensors"))


def inputs(batch: ScenarioBatch) -> torch.Tensor:
    """The model's inputs, (B, 2)."""
    return torch.stack([batch.capacity, batch.authenticity_score], dim=1)


def toy_batch(rows: int, seed: int) -> ScenarioBatch:
    """Random numbers, with 1 to 20 response tokens a row."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 21, (rows,), generator=draw)
    mask = torch.arange(20) < lengths[:, None]
    numbers = torch.rand(3, rows, generator=draw)
    nowhere = torch.zeros(rows, dtype=torch.int64)
    return ScenarioBatch(
        tokens=mask.long(),
        attention_mask=mask,
        response_mask=mask,
        authenticity_score=numbers[0],
        capacity=numbers[1],
        support_needed=numbers[2] * 5,
        cell=nowhere,
        example_id=torch.arange(rows),
        position=Position(("topic",), nowhere, nowhere, nowhere, nowhere),
        cursor=Cursor(),
        global_rows=rows,
        global_tokens=int(mask.sum()),
        too_long=0,
    )


def part(batch: ScenarioBatch, rows: slice) -> ScenarioBatch:
    """Some rows of a batch."""
    columns = ("tokens", "attention_mask", "response_mask", "authenticity_score", "capacity", "support_needed", "cell")
    taken = {name: getattr(batch, name)[rows] for name in (*columns, "example_id")}
    return ScenarioBatch(
        **taken,
        position=batch.position,
        cursor=batch.cursor,
        global_rows=batch.global_rows,
        global_tokens=batch.global_tokens,
        too_long=0,
    )
