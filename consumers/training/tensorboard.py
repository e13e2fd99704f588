"""Write a training run to TensorBoard: scalars of every step, held-out metrics, and terms with marked spans."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from consumers.reduction.judging import Judgement
from consumers.reduction.samples import render_sample

if TYPE_CHECKING:
    from consumers.training.report import Step

FOLDER = "tensorboard"
_SAMPLES = 10


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
        """Show held-out metrics after `step`, overall and by band, and some terms."""
        metrics = judgement.metrics
        overall = {
            "exact_span": metrics["exact_span"],
            "iou": metrics["iou"],
            "normal_form_precision": metrics["normal_form"]["precision"],
            "normal_form_recall": metrics["normal_form"]["recall"],
        }
        self._scalars("held_out", overall, step)
        for axis in ("size", "depth"):
            for band in metrics[f"by_{axis}"]:
                named = {name: band[name] for name in ("exact_span", "iou", "nf_precision", "nf_recall")}
                self._scalars(f"held_out_by_{axis}/{band['band']}", named, step)
        for number, sample in enumerate(judgement.samples[:_SAMPLES]):
            marked = render_sample(sample.term, sample.true_span, sample.predicted_span).plain
            # Indented by four, the text is code in Markdown, so backslashes stay.
            self._writer.add_text(f"held_out/{number}", "\n".join(f"    {line}" for line in marked.splitlines()), step)

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

    def _scalars(self, place: str, values: dict[str, float | None], step: int) -> None:
        for name, value in values.items():
            # A share of 0 rows has no value to plot.
            if value is not None:
                self._writer.add_scalar(f"{place}/{name}", value, step)
