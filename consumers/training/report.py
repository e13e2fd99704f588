"""Reports of a training run: every step, the counters, and the final result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consumers.training.task import Judgement

# Losses and rates are averaged over this many steps, because a single batch's loss mostly shows its difficulty.
SMOOTHING_STEPS = 20


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: from 1; a resumed run continues the numbers.
        loss: sum of losses by sum of weights, over all batches of the step.
        learning_rate: of this step.
        gradient_norm: before clipping.
        tokens_per_s: real tokens of all ranks, over the last 20 steps.
        padding_share: of the tokens of this step.
        elapsed_s: seconds of the run so far, including time before a resume.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_s: float
    padding_share: float
    elapsed_s: float


@dataclass(frozen=True)
class Counters:
    """Time spent and rows seen by a run, over all its sessions and ranks.

    Attributes:
        steps: optimizer steps.
        elapsed_s: seconds of the loop, with its checkpoints and judgements.
        stepping_s: seconds of the steps alone, including waiting for the feed.
        rows: examples.
        real_tokens: tokens without padding.
        all_tokens: tokens with padding.
        too_long: rows that the current pass has left out because they exceed the feed's `max_tokens`.
    """

    steps: int = 0
    elapsed_s: float = 0.0
    stepping_s: float = 0.0
    rows: int = 0
    real_tokens: int = 0
    all_tokens: int = 0
    too_long: int = 0


@dataclass(frozen=True)
class TrainReport:
    """The result of a run.

    Attributes:
        steps, elapsed_s, rows, real_tokens, too_long: as in `Counters`.
        first_loss, last_loss: means over the first and last steps (20, or a quarter of all steps if that is fewer).
        judgement: of the final model on held-out rows.
        tokens_per_s: real tokens, from the attention mask, per second of the steps alone.
        padding_share: share of padding in all tokens that went through the model.
        resumed_from: step of the checkpoint that this session resumed from; None for a new run.
        checkpoint: the run's folder, which holds the model.
        losses: of every step.
        before: figures of the model that the run began with, on the same held-out rows; None for a model from the seed.
    """

    steps: int
    elapsed_s: float
    rows: int
    real_tokens: int
    first_loss: float
    last_loss: float
    judgement: Judgement
    tokens_per_s: float
    padding_share: float
    too_long: int
    resumed_from: int | None
    checkpoint: Path
    losses: list[float]
    before: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, the judgement's figures among them; samples are left out."""
        values = asdict(self)
        del values["judgement"]
        return {**values, **self.judgement.figures, "checkpoint": str(self.checkpoint)}
