"""How a span predictor is trained: frozen settings, and which of them a resumed run must share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from consumers.feed import Feed
from consumers.reduction.loss import LABEL_SMOOTHING
from consumers.training.budget import Budget


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """What a step does.

    Attributes:
        learning_rate: the highest; `Budget.rate` says how it rises and falls.
        warmup_steps: of its rise.
        betas: of AdamW (Loshchilov and Hutter, arXiv:1711.05101).
        weight_decay: of AdamW, on matrices; norms and biases have none.
        clip_norm: the largest norm of the gradient.
        label_smoothing: see `consumers.reduction.loss`.
        bf16: let matrix products run in bfloat16; weights and losses stay float32.
    """

    learning_rate: float = 3e-3
    warmup_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    label_smoothing: float = LABEL_SMOOTHING
    bf16: bool = False


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a step is computed; results differ by rounding at most.

    Attributes:
        compile: have torch compile the model, which costs a minute at the start and needs a C++ compiler.
        gradient_checkpointing: compute activations again in the backward pass rather than keep them.
    """

    compile: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where and how often the run is saved.

    Attributes:
        out: the run's folder.
        every_steps: between two checkpoints; there is one at the end in any case.
        keep: of the newest checkpoints.
        resume: go on from the newest checkpoint in `out`.
        replace: throw away the run that `out` holds.
    """

    out: Path
    every_steps: int = 200
    keep: int = 3
    resume: bool = False
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How the model is judged on held-out rows.

    Attributes:
        rows: of the split `val`, or of `test` where the run learns from `val`.
        every_steps: between two judgements; there is one at the end in any case.
    """

    rows: int = 1024
    every_steps: int = 500


@dataclass(frozen=True, eq=False)
class CurriculumStage:
    """A feed of easier rows for the beginning of a run.

    Attributes:
        feed: of this rank, like the run's own.
        until: the share of the budget, in (0, 1), after which the next feed takes over.
    """

    feed: Feed
    until: float


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """All of it.

    Attributes:
        seed: of the weights and of the choice of held-out rows.
        model: sizes, by the names of `SpanPredictorConfig`.
    """

    saving: Saving
    budget: Budget
    seed: int = 0
    optimisation: Optimisation = field(default_factory=Optimisation)
    execution: Execution = field(default_factory=Execution)
    judging: Judging = field(default_factory=Judging)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def lasting(self) -> dict[str, Any]:
        """The settings that a resumed run must share, by name, as JSON gives them back."""
        return {"seed": self.seed, **asdict(self.optimisation), "betas": list(self.optimisation.betas)}


def bf16_is_fast(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are much faster on `device` than in float32: GPUs and CPUs with AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
