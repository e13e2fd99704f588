"""The training steps of one rank, and the state from which a run resumes exactly.

`TrainLoop` is one rank's part of a run: model, optimizer, feeds, random generators and counters. Every rank takes the
same steps. Once a step, ranks sum the values on which they must agree: the losses, the time, and whether to stop.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from consumers.batches import Batch
from consumers.training.checkpoint import MANIFEST, STAGE_MANIFEST, TRAINER, read_trainer, unreadable, write_json
from consumers.training.init_from import RunStart
from consumers.training.learner import Learner
from consumers.training.options import TrainOptions
from consumers.training.random_states import FIRST, random_states, seed_rank, set_random_states
from consumers.training.ranks import Ranks
from consumers.training.report import SMOOTHING_STEPS, Counters, Step
from consumers.training.stages import CurriculumStage, StageFeeds
from consumers.training.stopping import Stopped, StopRequest
from consumers.training.task import AnyTask, Judgement
from schema.errors import CheckpointError, TrainingError, UsageError


class TrainLoop:
    """One rank's part of a training run.

    Args:
        task: the kind of model.
        stages: this rank's feeds, in order; the last stage lasts to the end. The feeds get the states of rank 0 or of
            the checkpoint.
        options: settings of the run.
        ranks: this process and the other ranks.
        start: the checkpoint to resume or to begin with, the same on every rank.

    Attributes:
        feed: the last stage's feed.
        counters: time spent and rows seen so far.
        settings: the settings that a resumed run must share, by name.
        held_out_state: state of the checkpoint's `HeldOut`, None for a new run.
        stopped: whether the steps ended because a rank got a stop signal.

    Raises:
        UsageError: the checkpoint is of a run with other settings or another model, or ranks follow a topic without
            agreeing on passes.
        CheckpointError: the checkpoint cannot be read.
        FeedError: a feed cannot continue from the checkpoint.
    """

    def __init__(
        self, task: AnyTask, stages: Sequence[CurriculumStage], options: TrainOptions, ranks: Ranks, start: RunStart
    ) -> None:
        self._stages = StageFeeds(stages, ranks)
        self._options, self._ranks = options, ranks
        self.feed = self._stages.feed
        self.counters, self.stopped = Counters(), False
        self.held_out_state: dict[str, Any] | None = None
        self._ancestors = start.ancestors
        saved = read_trainer(start.resume) if start.resume else None
        torch.manual_seed(options.seed)
        model = task.build(start.resume or start.init_from).to(ranks.device)
        self._learner = Learner(task, model, options.optimisation, ranks)
        self.settings = {**self._stages.settings, **options.lasting, **task.settings(model)}
        if start.resume and saved:
            self._restore(start.resume, saved)
        else:
            if start.init_from:
                self._learner.load_model(start.init_from)
            seed_rank(options.seed, ranks, 0)
            if ranks.world > 1:
                self._stages.agree()
        self._learner.prepare(options.execution)
        self._recent: deque[tuple[float, float]] = deque(maxlen=SMOOTHING_STEPS)

    def _restore(self, checkpoint: Path, saved: dict[str, Any]) -> None:
        # Checkpoints of builds without accumulation took one batch a step.
        check_settings({"accumulation": 1, **saved["settings"]}, self.settings)
        self._learner.load(checkpoint)
        self.counters = Counters(**saved["counters"])
        self.held_out_state = saved["held_out"]
        self._ancestors = saved["ancestors"]
        states = [*saved["lessons"], saved["feed"]]
        if len(states) != (wanted := self._stages.count):
            raise CheckpointError(
                f"{checkpoint} has the states of {len(states)} stages, not of {wanted}: "
                "resume with the stages of the run"
            )
        self._stages.load(states)
        seed_rank(self._options.seed, self._ranks, self.counters.steps)
        try:
            set_random_states({**saved["more_random"], FIRST: saved["random"]}, self._ranks)
        except (ValueError, RuntimeError) as error:
            raise unreadable(checkpoint, error) from error

    def steps(self, stop: StopRequest) -> Iterator[Step]:
        """Take steps until the budget is used up or any rank gets a stop signal; time between steps counts, too.

        Raises:
            FeedError: a feed has no rows, or fails while it is read.
            TrainingError: the loss is no longer a number.
        """
        began = time.perf_counter() - self.counters.elapsed_s
        batches = self._stages.steps(self._options.optimisation.accumulation, self._spent, stop)
        self._learner.model.train()
        while not self.stopped and not self._options.budget.is_over(self.counters.steps, self.counters.elapsed_s):
            # With several ranks, the signalled rank reports with its next step, so that all stop after the same step.
            if self._ranks.world == 1 and stop.requested:
                self.stopped = True
                return
            started = time.perf_counter()
            try:
                taken = next(batches)
            except Stopped:
                self.stopped = True
                return
            yield self._step(taken, began, started, stop)

    def judge(self, rows: Batch | None) -> Judgement:
        """Judge the model as it is now on held-out rows."""
        return self._learner.judge(rows)

    def random_states(self) -> dict[str, str]:
        """Return the states of the random generators of all ranks for `save`; every rank must call this."""
        return random_states(self._ranks)

    def save(self, folder: Path, held_out_state: dict[str, Any], states: dict[str, str]) -> None:
        """Write everything that a resume needs into a folder; `states` are those of `random_states`."""
        places = self._stages.places
        self._learner.save(folder)
        write_json(
            folder,
            TRAINER,
            {
                "feedmill": version("feedmill"),
                "counters": asdict(self.counters),
                "settings": self.settings,
                "budget": asdict(self._options.budget),
                "lessons": [place.state for place in places[:-1]],
                "feed": places[-1].state,
                "held_out": held_out_state,
                "random": states[FIRST],
                "more_random": {name: state for name, state in states.items() if name != FIRST},
                "ancestors": self._ancestors,
            },
        )
        for number, place in enumerate(places, start=1):
            if place.manifest is not None:
                write_json(folder, MANIFEST if number == len(places) else STAGE_MANIFEST.format(number), place.manifest)

    def _spent(self) -> float:
        return self._options.budget.spent(self.counters.steps, self.counters.elapsed_s)

    def _step(self, batches: list[Batch], began: float, started: float, stop: StopRequest) -> Step:
        options, counters = self._options.optimisation, self.counters
        rate = options.learning_rate * self._options.budget.rate(
            counters.steps, counters.elapsed_s, options.warmup_steps
        )
        update = self._learner.update(batches, rate)
        # All ranks use rank 0's clock, so that they agree on whether the time is over.
        elapsed_s = time.perf_counter() - began if self._ranks.first else 0.0
        tokens = [sum(batch.real_tokens for batch in batches), sum(batch.attention_mask.numel() for batch in batches)]
        mine = [update.loss, sum(map(len, batches)), *tokens, float(stop.requested), elapsed_s]
        total, rows, real, every, stops, elapsed_s = self._ranks.sum(torch.tensor(mine, dtype=torch.float64)).tolist()
        seconds = time.perf_counter() - started
        self._recent.append((real, seconds))
        self.stopped = stops > 0
        self.counters = replace(
            counters,
            steps=counters.steps + 1,
            elapsed_s=elapsed_s,
            stepping_s=counters.stepping_s + seconds,
            rows=counters.rows + int(rows),
            real_tokens=counters.real_tokens + int(real),
            all_tokens=counters.all_tokens + int(every),
            too_long=batches[-1].too_long,
        )
        step = Step(
            number=self.counters.steps,
            loss=total / update.weight if update.weight else 0.0,
            learning_rate=rate,
            gradient_norm=update.gradient_norm,
            tokens_per_s=sum(tokens for tokens, _ in self._recent) / sum(spent for _, spent in self._recent),
            padding_share=1 - real / every if every else 0.0,
            elapsed_s=elapsed_s,
        )
        if not (math.isfinite(step.loss) and math.isfinite(step.gradient_norm)):
            raise TrainingError(
                f"the loss of step {step.number} is {step.loss}, its gradient's norm {step.gradient_norm}: "
                "start a new run with a lower --learning-rate"
            )
        return step


def check_settings(saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise UsageError with both values if a run was begun with other settings than those asked for."""
    for name, value in asked.items():
        before = saved.get(name)
        if isinstance(value, dict):
            check_settings(before or {}, value)
        elif before != value:
            raise UsageError(
                f"the checkpoint is of a run with {name} {before}, but {value} is asked for: "
                "resume with the same value, or start a new run in another --out"
            )
