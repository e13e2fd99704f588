"""Begin a new run with the weights of a checkpoint (`--init-from`): the checks, and the record of its training data.

A resumed run keeps its snapshot of the topic and never sees newer data. A run that begins with a checkpoint's weights
takes a new snapshot, so it is the way to train on newer data. Its checkpoints record their ancestors, because the model
was trained on their rows, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumers.feed import Feed
from consumers.training.checkpoint import TRAINER, read_trainer
from consumers.training.held_out import judging_split
from consumers.training.run_folder import find_checkpoint
from schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """Where a session's model comes from: a checkpoint to resume, a checkpoint's weights, or the seed.

    Attributes:
        resume: the checkpoint whose run continues; None for a new run.
        init_from: the checkpoint whose weights a new run begins with.
        ancestors: `Ancestor`s of the run as JSON values; those of a resumed run are in its checkpoint.
    """

    resume: Path | None = None
    init_from: Path | None = None
    ancestors: list[dict[str, Any]] = field(default_factory=list)


def start_from(path: Path, feed: Feed, out: Path) -> RunStart:
    """Return the start of a new run with the weights of a checkpoint.

    Args:
        path: a checkpoint, or a run's folder, whose newest checkpoint is taken.
        feed: the feed of the new run.
        out: the folder of the new run.

    Raises:
        CheckpointError: there is no checkpoint, or its trainer.json is invalid.
        UsageError: the checkpoint lies in `out`, was trained on another family, or learned from the rows that judge
            the new run.
    """
    checkpoint = find_checkpoint(path)
    if checkpoint.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"--init-from {path} is in the new run's own folder: choose another --out, or continue that run with "
            "--resume"
        )
    ancestors, own = [], None
    # A folder with a model alone, as at the top of a finished run, does not record its training data.
    if (checkpoint / TRAINER).exists():
        saved = read_trainer(checkpoint)
        ancestors, own = saved["ancestors"], saved["feed"]
    ancestors = [*ancestors, {"checkpoint": str(checkpoint), "feed": own}]
    for ancestor in ancestors:
        _check_feed(ancestor["checkpoint"], ancestor["feed"] or {}, feed)
    return RunStart(init_from=checkpoint, ancestors=ancestors)


def _check_feed(checkpoint: str, state: dict[str, Any], feed: Feed) -> None:
    """Raise UsageError if a checkpoint's feed had another family, or the split that judges the new run.

    The state is not loaded, so its offsets may be gone.
    """
    spec = state.get("spec")
    if not isinstance(spec, dict):
        return
    family, split = spec.get("family"), spec.get("split")
    if family != feed.family.name:
        raise UsageError(
            f"the checkpoint {checkpoint} was trained on the family {family!r}, but this run trains on "
            f"{feed.family.name!r}: give --init-from a checkpoint of {feed.family.name}"
        )
    if split in (None, judging_split(feed.split)):
        raise UsageError(
            f"the checkpoint {checkpoint} was trained on the split {split}, which holds the rows that judge this run: "
            f"give --init-from a checkpoint that was trained on {feed.split}"
        )
