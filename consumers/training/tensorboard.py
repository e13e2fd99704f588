"""Write a training run to TensorBoard: scalars of every step, and the scalars and texts of judgements."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from consumers.training.report import Step
from consumers.training.task import Judgement

FOLDER = "tensorboard"


class Board:
    """Writes to OUT/tensorboard until it is closed.

    Args:
        out: the run's folder.
        step: of the checkpoint that the run resumes from, 0 for a new run. TensorBoard drops data of later steps,
            because they come after the checkpoint.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._hook = threading.excepthook
        threading.excepthook = self._ended
        # torch declares no types for its writer's methods.
        self._writer: Any = SummaryWriter(str(out / FOLDER), purge_step=step + 1)

    def step(self, step: Step) -> None:
        """Show one optimizer step."""
        for name, value in (
            ("loss", step.loss),
            ("learning_rate", step.learning_rate),
            ("gradient_norm", step.gradient_norm),
            ("real_tokens_per_s", step.tokens_per_s),
            ("padding_share", step.padding_share),
        ):
            self._writer.add_scalar(f"train/{name}", value, step.number)

    def judged(self, judgement: Judgement, step: int) -> None:
        """Show the scalars and texts of a judgement after `step`."""
        for tag, value in judgement.scalars.items():
            # A share of 0 rows has no value to plot.
            if value is not None:
                self._writer.add_scalar(tag, value, step)
        for tag, text in judgement.texts.items():
            self._writer.add_text(tag, text, step)

    def close(self) -> None:
        """Close the files."""
        try:
            self._writer.close()
        finally:
            threading.excepthook = self._hook

    def flush(self) -> None:
        """Write all pending data to disk."""
        self._writer.flush()

    def _ended(self, ended: threading.ExceptHookArgs) -> None:
        """Print no traceback of TensorBoard's own thread: the next call of its writer raises the same error."""
        if not type(ended.thread).__module__.startswith("tensorboard."):
            self._hook(ended)
