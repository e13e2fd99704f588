"""Train the span predictor from a feed, with checkpoints, in one process or on the ranks of `torchrun`.

`train` takes a `Feed` of the reduction family and gives a `TrainReport`. The run's folder holds:

::

    OUT/
        step-00000200/    checkpoints; the last few are kept (consumers/training/checkpoint.py)
        losses.jsonl      one line per step
        tensorboard/      data for TensorBoard
        config.json, model.safetensors, training.json    after the run: its model and its report

A run has five steps:

1. Lock the run's folder. Find the checkpoint to resume from, or check that the folder holds no run.
2. Make model and optimizer, from the seed or from the checkpoint. Set the feed to the checkpoint's state.
3. Take steps until the budget is used up, with regular checkpoints and judgements on held-out rows.
4. Save the last checkpoint. After a stop signal the run ends here.
5. Judge the model and put it at the top of the folder.

On a CPU, with a budget of steps alone, a run that was killed and resumed gives the same losses as an uninterrupted
one, to the last bit. So do two runs with the same feed offsets, options and seed. Both hold for the same machine,
number of threads and libraries.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from consumers.feed import Feed
from consumers.reduction.judging import HeldOut, Judgement, judging_split
from consumers.sequence.spec import read_state
from consumers.training.checkpoint import CONFIG, WEIGHTS, read_trainer
from consumers.training.loss_log import NAME as LOSSES
from consumers.training.loss_log import LossLog
from consumers.training.options import CurriculumStage, TrainOptions
from consumers.training.ranks import ALONE, Ranks
from consumers.training.report import SMOOTHING_STEPS, Step, TrainReport
from consumers.training.run_folder import RunFolder, flush, newest_first
from consumers.training.stopping import StopRequest
from consumers.training.tensorboard import FOLDER as BOARD
from consumers.training.tensorboard import Board
from consumers.training.train_loop import Learning
from schema.errors import CheckpointError, TrainingStoppedError, UsageError

REPORT = "training.json"
# A full disk, a quota, a limit on a file's size, a disk that fails, and a read-only disk.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_REPORTS: TypeAdapter[TrainReport | None] = TypeAdapter(TrainReport | None)
# Files that make OUT itself a model for `SpanPredictor.from_pretrained`.
_MODEL = (CONFIG, WEIGHTS)


def train(
    feed: Feed,
    options: TrainOptions,
    on_step: Callable[[Step], None] = lambda step: None,
    *,
    before: Sequence[CurriculumStage] = (),
    ranks: Ranks = ALONE,
    stop: StopRequest | None = None,
) -> TrainReport:
    """Train a span predictor on `feed`, from scratch or from its newest checkpoint.

    Args:
        feed: this rank's share of the global batches.
        options: the same on every rank; all of them see `options.saving.out` on one file system.
        on_step: called after every step, on rank 0.
        before: stages with easier rows to begin with, in order.
        ranks: this process and the other ranks.
        stop: ends the run early, with a checkpoint.

    Returns:
        The report, the same on every rank.

    Raises:
        UsageError: the feed reads all splits, the folder holds a run and neither `resume` nor `replace` is set, or the
            checkpoint is of a run with other settings.
        CheckpointError: there is nothing to resume, or a checkpoint cannot be read or written.
        FeedError: the feed has no rows, fails while it is read, or cannot continue from the checkpoint.
        TrainingError: the loss is no longer a number.
        TrainingStoppedError: `stop` was requested; the checkpoint is saved.
    """
    stop = stop or StopRequest()
    judging_split(feed.split)
    folder = RunFolder(options.saving.out, options.saving.keep)
    with ExitStack() as stack:
        stack.enter_context(_disk(options.saving.out))
        checkpoint = ranks.from_first(lambda: _begin(folder, options, stack))  # 1
        stages = (*before, CurriculumStage(feed, 1.0))
        learning = Learning(stages, options, ranks, Path(checkpoint) if checkpoint else None)  # 2
        recorder = stack.enter_context(RunRecorder(folder, learning, options, on_step)) if ranks.first else None
        for step in learning.steps(stop):  # 3
            if recorder:
                recorder.stepped(step)
        if recorder:
            recorder.save()  # 4
        if learning.stopped:
            if not ranks.first:
                # Only rank 0 prints the error line.
                raise SystemExit(stop.exit_status)
            raise _stopped(stop, learning.counters.steps, options.saving.out)
        report = recorder.finish() if recorder else None  # 5
        shared = ranks.share(_REPORTS.dump_python(report, mode="json"))
        return report or cast(TrainReport, _REPORTS.validate_python(shared))


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """Turn a disk error anywhere in a run into one error line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise CheckpointError(
            f"{out} cannot be written ({error.strerror}): make room, then resume with "
            f"`feedmill train reduction --resume --out {out}`"
        ) from error


def saved_choices(out: Path) -> dict[str, Any]:
    """Return the settings of the newest checkpoint in a run's folder, by name, with `budget` and `least_rows`.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        FeedError: the feed's state in the checkpoint cannot be read.
    """
    saved = read_trainer(_newest(out))
    least_rows = read_state(saved["feed"]).spec.least_rows
    return {**saved["settings"], "budget": saved["budget"], "least_rows": least_rows}


def _newest(out: Path) -> Path:
    checkpoints = newest_first(out)
    if not checkpoints:
        raise CheckpointError(f"{out} holds no checkpoint to resume: train without --resume, or name another --out")
    return checkpoints[0]


def _begin(folder: RunFolder, options: TrainOptions, stack: ExitStack) -> str | None:
    """Lock the run's folder until `stack` ends; return the checkpoint to resume from, None for a new run."""
    stack.enter_context(folder.locked())
    out = folder.out
    if options.saving.resume:
        return str(_newest(out))
    checkpoints = newest_first(out)
    if checkpoints and not options.saving.replace:
        raise UsageError(
            f"{out} holds a run with {checkpoints[0].name}: continue it with --resume, remove it with --replace, "
            "or choose another --out"
        )
    folder.clear()
    shutil.rmtree(out / BOARD, ignore_errors=True)
    for name in (LOSSES, REPORT, *_MODEL):
        (out / name).unlink(missing_ok=True)
    return None


def _stopped(stop: StopRequest, steps: int, out: Path) -> TrainingStoppedError:
    name = stop.signal.name if stop.signal else "a signal to another rank"
    next_command = (
        f"`feedmill train reduction --resume --out {out}` continues from there" if steps else "nothing was learnt yet"
    )
    return TrainingStoppedError(f"stopped by {name} after step {steps}: {next_command}", stop.exit_status)


class RunRecorder:
    """Rank 0's recording of a run: checkpoints, judgements, logs and the report; a context manager."""

    def __init__(
        self, folder: RunFolder, learning: Learning, options: TrainOptions, on_step: Callable[[Step], None]
    ) -> None:
        self._folder, self._learning, self._options, self._on_step = folder, learning, options, on_step
        self._held_out = HeldOut(learning.feed, options.judging.rows, options.seed, learning.held_out_state)
        self._begun_at = learning.counters.steps
        self._saved_at = self._begun_at
        self._log = LossLog(folder.out, self._begun_at)
        self._board = Board(folder.out, self._begun_at)

    def __enter__(self) -> RunRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        # The log closes even if TensorBoard's files cannot be written any more.
        with closing(self._log):
            self._board.close()

    def stepped(self, step: Step) -> None:
        """Record a step, and judge or save when it is time."""
        self._log.add(step.number, step.loss, learning_rate=step.learning_rate, gradient_norm=step.gradient_norm)
        self._board.step(step)
        self._on_step(step)
        if step.number % self._options.judging.every_steps == 0:
            self._judge()
        if step.number % self._options.saving.every_steps == 0:
            self.save()

    def save(self) -> None:
        """Write a checkpoint, unless the last one is of this step."""
        steps = self._learning.counters.steps
        if steps == self._saved_at:
            return
        # The losses reach the disk before a checkpoint that counts their steps.
        self._log.to_disk()
        self._board.flush()
        with self._folder.writing(steps) as making:
            self._learning.save(making, self._held_out.state)
        self._saved_at = steps

    def finish(self) -> TrainReport:
        """Judge the model, put it at the top of the folder and return the report."""
        report = self._report(self._judge())
        newest = newest_first(self._folder.out)[0]
        for name in _MODEL:
            _place(self._folder.out / name, (newest / name).read_bytes())
        summary = {
            "feedmill": version("feedmill"),
            "topics": list(self._learning.feed.topics),
            "offsets": self._learning.feed.offsets,
            **self._learning.settings,
            **asdict(replace(report, losses=[], samples=[])),
            "checkpoint": newest.name,
        }
        del summary["losses"], summary["samples"]
        _place(self._folder.out / REPORT, (json.dumps(summary, indent=2) + "\n").encode())
        return report

    def _judge(self) -> Judgement:
        judgement = self._learning.judge(self._held_out)
        self._board.judged(judgement, self._learning.counters.steps)
        return judgement

    def _report(self, judgement: Judgement) -> TrainReport:
        counters, losses = self._learning.counters, self._log.losses
        span = max(1, min(SMOOTHING_STEPS, len(losses) // 4))
        return TrainReport(
            steps=counters.steps,
            elapsed_s=counters.elapsed_s,
            rows=counters.rows,
            real_tokens=counters.real_tokens,
            first_loss=sum(losses[:span]) / span,
            last_loss=sum(losses[-span:]) / span,
            exact_span=judgement.metrics["exact_span"],
            held_out_rows=judgement.metrics["rows"],
            held_out=judgement.metrics,
            tokens_per_s=counters.real_tokens / counters.stepping_s,
            padding_share=1 - counters.real_tokens / counters.all_tokens,
            too_long=counters.too_long,
            resumed_from=self._begun_at or None,
            checkpoint=self._folder.out,
            losses=losses,
            samples=judgement.samples,
        )


def _place(path: Path, content: bytes) -> None:
    """Write a file and flush it to disk before it gets its final name."""
    making = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        making.write_bytes(content)
        flush(making)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
