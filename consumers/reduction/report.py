"""What a training run tells: every step while it goes on, its counters, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumers.reduction.samples import Sample

# Losses and rates are told over this many steps: one batch's is mostly its own difficulty.
SMOOTHING_STEPS = 20


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        number: from 1; a resumed run goes on counting.
        loss: mean over the global batch.
        learning_rate: of this step.
        gradient_norm: unclipped.
        tokens_per_s: real tokens of all ranks, over the last 20 steps.
        padding_share: of the tokens of this step.
        elapsed_s: of the run so far, what came before a resume included.
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
    """What a run has spent and seen, over all its sessions and ranks.

    Attributes:
        steps: optimizer steps.
        elapsed_s: of the loop, with its checkpoints and judgements.
        stepping_s: of its steps alone, waiting for the feed included.
        rows: examples.
        real_tokens: without padding.
        all_tokens: with it.
        too_long: rows that the present pass left out so far for exceeding the feed's `max_tokens`.
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
    """What came of a run.

    Attributes:
        steps, elapsed_s, rows, real_tokens, too_long: as in `Counters`.
        first_loss, last_loss: means over the first and last steps (20, or a quarter of them all if that is fewer).
        exact_span: share of the held-out rows whose span, or normal form, is predicted exactly; None without such rows.
        held_out_rows: rows that share is of.
        held_out: `SpanMetrics.summary` of them: exact span, IoU and normal forms, by size and depth band.
        tokens_per_s: real tokens, from the attention mask, of the steps alone.
        padding_share: of all tokens that went through the model.
        resumed_from: the step whose checkpoint this session went on from; None if it began the run.
        checkpoint: the run's folder, which holds the model.
        losses: of every step.
        samples: held-out terms with predictions.
    """

    steps: int
    elapsed_s: float
    rows: int
    real_tokens: int
    first_loss: float
    last_loss: float
    exact_span: float | None
    held_out_rows: int
    held_out: dict[str, Any]
    tokens_per_s: float
    padding_share: float
    too_long: int
    resumed_from: int | None
    checkpoint: Path
    losses: list[float]
    samples: list[Sample]
