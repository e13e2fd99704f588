"""Rank 0's recording of a run: judgements, checkpoints, logs, TensorBoard and the final report."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from consumers.training.checkpoint import REPORT, read_json
from consumers.training.held_out import HeldOut
from consumers.training.loss_log import LossLog
from consumers.training.options import TrainOptions
from consumers.training.report import SMOOTHING_STEPS, Step, TrainReport
from consumers.training.run_folder import RunFolder, flush, newest_first
from consumers.training.stopping import Stopped, StopRequest
from consumers.training.task import Judgement
from consumers.training.tensorboard import Board
from consumers.training.train_loop import TrainLoop
from schema.stale_files import in_making

# The judgement of the model that a run began with.
BEFORE = "before.json"


class RunRecorder:
    """Records a run on rank 0; a context manager.

    Args:
        folder: the locked folder of the run.
        loop: the run, before its first step.
        options: settings of the run.
        on_step: called after every step.
        stop: a signal ends a judgement early, because it can take minutes; that judgement is then left out.

    Raises:
        FeedError: the topic no longer holds the held-out rows of a resumed run.
    """

    def __init__(
        self,
        folder: RunFolder,
        loop: TrainLoop,
        options: TrainOptions,
        on_step: Callable[[Step], None],
        stop: StopRequest,
    ) -> None:
        self._folder, self._loop, self._options, self._on_step, self._stop = folder, loop, options, on_step, stop
        self._held_out = HeldOut(loop.feed, options.judging.rows, options.seed, loop.held_out_state)
        self._begun_at = loop.counters.steps
        self._saved_at = self._begun_at
        self._judged: tuple[int, Judgement] | None = None
        self._log = LossLog(folder.out, self._begun_at)
        self._board = Board(folder.out, self._begun_at)

    def __enter__(self) -> RunRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        # The log closes even if TensorBoard's files cannot be written any more.
        with closing(self._log):
            self._board.close()

    def stepped(self, step: Step) -> None:
        """Record a step, and judge the model when it is time."""
        self._log.add(step.number, step.loss, learning_rate=step.learning_rate, gradient_norm=step.gradient_norm)
        self._board.step(step)
        self._on_step(step)
        if step.number % self._options.judging.every_steps == 0:
            self._judge()

    def save(self, random_states: dict[str, str]) -> None:
        """Write a checkpoint with the states of all ranks' generators, unless the last one is of this step."""
        steps = self._loop.counters.steps
        if steps == self._saved_at:
            return
        # The losses reach the disk before a checkpoint that counts their steps.
        self._log.to_disk()
        self._board.flush()
        with self._folder.writing(steps) as making:
            self._loop.save(making, self._held_out.state, random_states)
        self._saved_at = steps

    def judge_before(self) -> None:
        """Judge the model that the run begins with, on the rows that will judge it at the end."""
        if (judgement := self._judgement()) is not None:
            _place(self._folder.out / BEFORE, (json.dumps(judgement.figures, indent=2) + "\n").encode())

    def finish(self, model_files: tuple[str, ...]) -> TrainReport | None:
        """Judge the model, copy its files to the top of the run's folder, and return the report.

        Returns None, and copies nothing, if a signal stops the run before the model is judged.
        """
        if (judgement := self._judge()) is None:
            return None
        report = self._report(judgement)
        newest = newest_first(self._folder.out)[0]
        for name in model_files:
            _place(self._folder.out / name, (newest / name).read_bytes())
        summary = {
            "feedmill": version("feedmill"),
            "topics": list(self._loop.feed.topics),
            "offsets": self._loop.feed.offsets,
            **self._loop.settings,
            **report.to_json(),
            "checkpoint": newest.name,
        }
        del summary["losses"]
        _place(self._folder.out / REPORT, (json.dumps(summary, indent=2) + "\n").encode())
        return report

    def _judge(self) -> Judgement | None:
        steps = self._loop.counters.steps
        # The last step can be one after which the model is judged anyway.
        if self._judged is not None and self._judged[0] == steps:
            return self._judged[1]
        if (judgement := self._judgement()) is not None:
            self._judged = steps, judgement
            self._board.judged(judgement, steps)
        return judgement

    def _judgement(self) -> Judgement | None:
        """Judge the model; None if a signal arrives before the judgement is complete."""
        try:
            with self._stop.waiting():
                return self._loop.judge(self._held_out.batch)
        except Stopped:
            return None

    def _report(self, judgement: Judgement) -> TrainReport:
        counters, losses = self._loop.counters, self._log.losses
        span = max(1, min(SMOOTHING_STEPS, len(losses) // 4))
        return TrainReport(
            steps=counters.steps,
            elapsed_s=counters.elapsed_s,
            rows=counters.rows,
            real_tokens=counters.real_tokens,
            first_loss=sum(losses[:span]) / span,
            last_loss=sum(losses[-span:]) / span,
            judgement=judgement,
            tokens_per_s=counters.real_tokens / counters.stepping_s,
            padding_share=1 - counters.real_tokens / counters.all_tokens,
            too_long=counters.too_long,
            resumed_from=self._begun_at or None,
            checkpoint=self._folder.out,
            losses=losses,
            before=read_json(self._folder.out, BEFORE) if (self._folder.out / BEFORE).exists() else None,
        )


def _place(path: Path, content: bytes) -> None:
    """Write a file and flush it to disk before it gets its final name."""
    making = in_making(path, "part")
    try:
        making.write_bytes(content)
        flush(making)
        making.replace(path)
    finally:
        making.unlink(missing_ok=True)
