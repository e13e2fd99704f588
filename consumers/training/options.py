"""Settings of a training run that every family shares, and those of them that a resumed run must share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from consumers.training.budget import Budget
from schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """Settings of the optimizer steps.

    Attributes:
        learning_rate: the highest rate; `Budget.rate` makes it rise and fall.
        warmup_steps: steps during which the rate rises.
        betas: of AdamW (Loshchilov and Hutter, arXiv:1711.05101).
        weight_decay: of AdamW, on matrices only, not on norms and biases.
        clip_norm: the largest norm of the gradient.
        accumulation: batches of the feed in one step. Memory is that of a single batch.
        bf16: let matrix products run in bfloat16; weights and losses stay float32.

    Raises:
        UsageError: `accumulation` is below 1.
    """

    learning_rate: float = 3e-3
    warmup_steps: int = 50
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    accumulation: int = 1
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.accumulation < 1:
            raise UsageError(f"accumulation {self.accumulation} is invalid: a step takes at least 1 batch")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Settings of the computation that change results by rounding at most.

    Attributes:
        compile: let torch compile the model, which takes a minute at the start and needs a C++ compiler.
        gradient_checkpointing: compute activations again in the backward pass, not keep them in memory.
    """

    compile: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Where and how often the run is saved, and how it begins.

    Attributes:
        out: the run's folder.
        every_steps: steps between two checkpoints; the end of the run always makes one.
        keep: how many of the newest checkpoints to keep.
        resume: continue from the newest checkpoint in `out`.
        init_from: begin a new run with the weights of this checkpoint, or of the newest one in this run's folder. The
            optimizer, the steps and the feed begin as in any new run.
        replace: remove the run that `out` holds.

    Raises:
        UsageError: both `resume` and `init_from` are set.
    """

    out: Path
    every_steps: int = 200
    keep: int = 3
    resume: bool = False
    init_from: Path | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.init_from is not None:
            raise UsageError(
                f"--resume continues the run in {self.out}, and --init-from {self.init_from} begins a new one: "
                "give one of them"
            )


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How the model is judged on held-out rows.

    Attributes:
        rows: number of rows, from the split `val`, or from `test` if the run learns from `val`.
        every_steps: steps between two judgements; the end of the run always makes one.
    """

    rows: int = 1024
    every_steps: int = 500


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """All settings of a training run.

    Attributes:
        seed: seed of the weights and of the draw of held-out rows.
    """

    saving: Saving
    budget: Budget
    seed: int = 0
    optimisation: Optimisation = field(default_factory=Optimisation)
    execution: Execution = field(default_factory=Execution)
    judging: Judging = field(default_factory=Judging)

    @property
    def lasting(self) -> dict[str, Any]:
        """The settings that a resumed run must share, by name, with JSON values."""
        return {"seed": self.seed, **asdict(self.optimisation), "betas": list(self.optimisation.betas)}


def bf16_is_fast(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are much faster on `device` than in float32: GPUs and CPUs with AMX."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
