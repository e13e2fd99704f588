"""Train a model from a feed, with checkpoints, in one process or on the ranks of `torchrun`.

`train` takes a `TrainTask` and a `Feed` of its family, and gives a `TrainReport`. The run's folder holds:

::

    OUT/
        step-00000200/    checkpoints; the last few are kept (consumers/training/checkpoint.py)
        losses.jsonl      one line per step
        tensorboard/      data for TensorBoard
        before.json       with `init_from`: the judgement of the model that the run began with
        training.json     after the run: its report, beside the model's files

A run has six steps:

1. Lock the run's folder. Find the checkpoint to resume or to begin with, or check that the folder holds no run.
2. Make model and optimizer, from the seed or from the checkpoint. Set the feed to the state of a resumed checkpoint.
3. Remove the run that the folder holds, if it is to be replaced.
4. Take steps until the budget is used up, with regular checkpoints and judgements on held-out rows.
5. Save the last checkpoint. After a stop signal the run ends here.
6. Judge the model and put it at the top of the folder. A stop signal ends the run before the model is judged.

On a CPU, with a budget of steps alone, a run that was killed and resumed gives the same losses as an uninterrupted
one, to the last bit. So do two runs with the same feed offsets, options and seed. Both hold for the same machine,
number of threads and ranks, and libraries.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from consumers.feed import Feed
from consumers.sequence.spec import read_state
from consumers.training.checkpoint import REPORT, read_trainer
from consumers.training.held_out import judging_split
from consumers.training.init_from import RunStart, start_from
from consumers.training.loss_log import NAME as LOSSES
from consumers.training.options import Saving, TrainOptions
from consumers.training.ranks import ALONE, Ranks
from consumers.training.recorder import BEFORE, RunRecorder
from consumers.training.report import Step, TrainReport
from consumers.training.run_folder import RunFolder, newest_first
from consumers.training.stages import CurriculumStage
from consumers.training.stopping import StopRequest
from consumers.training.task import BatchType, ModelType, TrainTask
from consumers.training.tensorboard import FOLDER as BOARD
from consumers.training.train_loop import TrainLoop
from schema.errors import CheckpointError, TrainingStoppedError, UsageError

# A full disk, a quota, a limit on a file's size, a disk that fails, and a read-only disk.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_REPORTS: TypeAdapter[TrainReport | None] = TypeAdapter(TrainReport | None)
_STARTS: TypeAdapter[RunStart] = TypeAdapter(RunStart)


def train(
    task: TrainTask[ModelType, BatchType],
    feed: Feed,
    options: TrainOptions,
    on_step: Callable[[Step], None] = lambda step: None,
    *,
    before: Sequence[CurriculumStage] = (),
    ranks: Ranks = ALONE,
    stop: StopRequest | None = None,
) -> TrainReport:
    """Train a model on `feed`: from scratch, from the run's newest checkpoint, or from another run's weights.

    Args:
        task: the kind of model.
        feed: this rank's share of the global batches, of the task's family.
        options: the same on every rank; all of them see `options.saving.out` on one file system.
        on_step: called after every step, on rank 0.
        before: stages with easier rows to begin with, in order.
        ranks: this process and the other ranks.
        stop: ends the run early, with a checkpoint.

    Returns:
        The report, the same on every rank.

    Raises:
        UsageError: the feed is of another family or reads all splits, the folder holds a run and neither `resume` nor
            `replace` is set, or a checkpoint is of a run with other settings, another family or another model.
        CheckpointError: there is nothing to resume, or a checkpoint cannot be read or written.
        FeedError: the feed has no rows, fails while it is read, or cannot continue from the checkpoint.
        TrainingError: the loss is no longer a number.
        TrainingStoppedError: `stop` was requested; the checkpoint is saved.
    """
    stop = stop or StopRequest()
    saving = options.saving
    if feed.family.name != task.family:
        raise UsageError(f"the feed is of {feed.family.name}, but the task trains on {task.family}: give it its family")
    judging_split(feed.split)
    folder = RunFolder(saving.out, saving.keep)
    with ExitStack() as stack:
        stack.enter_context(_disk(task.family, saving.out))
        found = ranks.from_first(lambda: _STARTS.dump_python(_begin(folder, saving, feed, stack), mode="json"))  # 1
        stages = (*before, CurriculumStage(feed, 1.0))
        loop = TrainLoop(task, stages, options, ranks, _STARTS.validate_python(found))  # 2
        recorder = None
        if ranks.first:
            if not saving.resume:
                _clear(folder, task.model_files)  # 3
            recorder = stack.enter_context(RunRecorder(folder, loop, options, on_step, stop))
            if saving.init_from and not saving.resume:
                recorder.judge_before()
        for step in loop.steps(stop):  # 4
            if recorder:
                recorder.stepped(step)
            if step.number % saving.every_steps == 0:
                _save(loop, recorder)
        _save(loop, recorder)  # 5
        report = None
        if not loop.stopped:
            report = recorder.finish(task.model_files) if recorder else None  # 6
            shared = ranks.share(_REPORTS.dump_python(report, mode="json"))
            report = report or _REPORTS.validate_python(shared)
        if report is not None:
            return report
        if not ranks.first:
            # Only rank 0 prints the error line.
            raise SystemExit(stop.exit_status)
        raise _stopped(stop, loop.counters.steps, task.family, saving.out)


def _save(loop: TrainLoop, recorder: RunRecorder | None) -> None:
    """Save a checkpoint on rank 0; every rank contributes its random generators."""
    states = loop.random_states()
    if recorder:
        recorder.save(states)


@contextmanager
def _disk(family: str, out: Path) -> Iterator[None]:
    """Turn a disk error anywhere in a run into one error line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise CheckpointError(
            f"{out} cannot be written ({error.strerror}): make room, then resume with "
            f"`feedmill train {family} --resume --out {out}`"
        ) from error


def saved_choices(out: Path) -> dict[str, Any]:
    """Return the settings of the newest checkpoint in a run's folder, by name.

    With them are `budget`, `least_rows`, and `sources` of the feed: [topic, weight, repeat] of each.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        FeedError: the feed's state in the checkpoint cannot be read.
    """
    saved = read_trainer(_newest(out))
    spec = read_state(saved["feed"]).spec
    sources = [[source.topic, source.weight, source.repeat] for source in spec.sources]
    return {**saved["settings"], "budget": saved["budget"], "least_rows": spec.least_rows, "sources": sources}


def _newest(out: Path) -> Path:
    checkpoints = newest_first(out)
    if not checkpoints:
        raise CheckpointError(f"{out} holds no checkpoint to resume: train without --resume, or name another --out")
    return checkpoints[0]


def _begin(folder: RunFolder, saving: Saving, feed: Feed, stack: ExitStack) -> RunStart:
    """Lock the run's folder until `stack` ends, and return where the model comes from."""
    stack.enter_context(folder.locked())
    out = folder.out
    if saving.resume:
        return RunStart(resume=_newest(out))
    checkpoints = newest_first(out)
    if checkpoints and not saving.replace:
        raise UsageError(
            f"{out} holds a run with {checkpoints[0].name}: continue it with --resume, remove it with --replace, "
            "or choose another --out"
        )
    return RunStart() if saving.init_from is None else start_from(saving.init_from, feed, out)


def _clear(folder: RunFolder, model_files: tuple[str, ...]) -> None:
    """Remove the run that the folder holds."""
    folder.clear()
    shutil.rmtree(folder.out / BOARD, ignore_errors=True)
    for name in (LOSSES, BEFORE, REPORT, *model_files):
        (folder.out / name).unlink(missing_ok=True)


def _stopped(stop: StopRequest, steps: int, family: str, out: Path) -> TrainingStoppedError:
    name = stop.signal.name if stop.signal else "a signal to another rank"
    next_command = (
        f"`feedmill train {family} --resume --out {out}` continues from there" if steps else "nothing was learnt yet"
    )
    return TrainingStoppedError(f"stopped by {name} after step {steps}: {next_command}", stop.exit_status)
