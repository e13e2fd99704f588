"""The training steps of a span predictor, and the state from which a run resumes exactly.

`Learning` is one rank's part of a run: model, optimizer, feed and counters. Every rank takes the same steps. Once a
step, ranks sum the values on which they must agree: the loss, the time, and whether to stop.
"""

from __future__ import annotations

import inspect
import itertools
import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from consumers.feed import Feed
from consumers.reduction.judging import HeldOut, Judgement
from consumers.reduction.loss import loss_sums
from consumers.reduction.model import SpanPredictor, SpanPredictorConfig
from consumers.reduction.tensors import ReductionBatch
from consumers.training.checkpoint import (
    MANIFEST,
    STAGE_MANIFEST,
    TRAINER,
    Learner,
    load_config,
    random_state,
    read_trainer,
    set_random_state,
    write_json,
)
from consumers.training.options import CurriculumStage, Optimisation, TrainOptions
from consumers.training.ranks import Ranks
from consumers.training.report import SMOOTHING_STEPS, Counters, Step
from consumers.training.stopping import Stopped, StopRequest
from schema.errors import CheckpointError, FeedError, TrainingError, UsageError


class Learning:
    """One rank's part of a training run.

    Args:
        stages: this rank's feeds, in order; the last stage lasts to the end. The feeds get the states of rank 0 or of
            the checkpoint.
        options: settings of the run.
        ranks: this process and the other ranks.
        checkpoint: the checkpoint to resume from; None begins from the seed.

    Attributes:
        feed: the last stage's feed.
        counters: time spent and rows seen so far.
        settings: the settings that a resumed run must share, by name.
        held_out_state: state of the checkpoint's `HeldOut`, None for a new run.
        stopped: whether the steps ended because a rank got a stop signal.

    Raises:
        UsageError: the checkpoint is of a run with other settings, or ranks follow a topic without agreeing on passes.
        CheckpointError: the checkpoint cannot be read.
        FeedError: the feed cannot continue from the checkpoint.
    """

    def __init__(
        self, stages: Sequence[CurriculumStage], options: TrainOptions, ranks: Ranks, checkpoint: Path | None
    ) -> None:
        for stage in stages:
            if ranks.world > 1 and stage.feed.spec.mode == "follow" and stage.feed.options.together is None:
                raise UsageError(
                    f"{ranks.world} ranks each follow a topic by themselves, so their batches do not fit together: "
                    "give every feed `FeedOptions(together=RankPasses(...))`"
                )
        self._stages, self._options, self._ranks = stages, options, ranks
        self.feed = stages[-1].feed
        self.counters, self.stopped = Counters(), False
        self.held_out_state: dict[str, Any] | None = None
        saved = read_trainer(checkpoint) if checkpoint else None
        torch.manual_seed(options.seed)
        self._model = SpanPredictor(_config(options, checkpoint)).to(ranks.device)
        self._learner = Learner(self._model, _optimizer(self._model, options.optimisation))
        self.settings = {**_feed_settings(stages), **options.lasting, "model": _sizes(self._model.config)}
        if checkpoint and saved:
            check_settings(saved["settings"], self.settings)
            self._learner.load(checkpoint)
            self.counters = Counters(**saved["counters"])
            self.held_out_state = saved["held_out"]
            states = [*saved["lessons"], saved["feed"]]
            if len(states) != len(stages):
                raise CheckpointError(
                    f"{checkpoint} has the states of {len(states)} stages, not of {len(stages)}: "
                    "resume with the stages of the run"
                )
            for stage, state in zip(stages, states, strict=True):
                stage.feed.load_state_dict(state)
            set_random_state(checkpoint, saved["random"])
        elif ranks.world > 1:
            for stage in stages:
                # The ranks may have made their feeds at different end offsets.
                stage.feed.load_state_dict(ranks.share(stage.feed.state_dict()))
        self._forward = self._prepared()
        self._recent: deque[tuple[float, float]] = deque(maxlen=SMOOTHING_STEPS)
        self._interrupted: list[_FeedAt] | None = None

    def _prepared(self) -> nn.Module:
        execution = self._options.execution
        if execution.gradient_checkpointing:
            self._model.gradient_checkpointing_enable()
        if execution.compile:
            self._model.compile(dynamic=True)
        return self._ranks.wrap(self._model)

    def steps(self, stop: StopRequest) -> Iterator[Step]:
        """Take steps until the budget is used up or any rank gets a stop signal; time between steps counts, too.

        Raises:
            FeedError: the feed has no rows, or fails while it is read.
            TrainingError: the loss is no longer a number.
        """
        began = time.perf_counter() - self.counters.elapsed_s
        batches = self._batches(stop)
        self._model.train()
        while not self.stopped and not self._options.budget.is_over(self.counters.steps, self.counters.elapsed_s):
            # With several ranks, the signalled rank reports with its next step, so that all stop after the same step.
            if self._ranks.world == 1 and stop.requested:
                self.stopped = True
                return
            started = time.perf_counter()
            try:
                batch = next(batches)
            except Stopped:
                self.stopped = True
                return
            yield self._step(batch, began, started, stop)

    def judge(self, held_out: HeldOut) -> Judgement:
        """Judge the model as it is now on held-out rows."""
        return held_out.judge(self._model, self._ranks.device, bf16=self._options.optimisation.bf16)

    def save(self, folder: Path, held_out_state: dict[str, Any]) -> None:
        """Write everything that a resume needs into a folder."""
        at = self._interrupted or self._feeds_at()
        self._learner.save(folder)
        write_json(
            folder,
            TRAINER,
            {
                "feedmill": version("feedmill"),
                "counters": asdict(self.counters),
                "settings": self.settings,
                "budget": asdict(self._options.budget),
                "lessons": [earlier.state for earlier in at[:-1]],
                "feed": at[-1].state,
                "held_out": held_out_state,
                "random": random_state(),
            },
        )
        for number, stage in enumerate(at, start=1):
            if stage.manifest is not None:
                write_json(folder, MANIFEST if number == len(at) else STAGE_MANIFEST.format(number), stage.manifest)

    def _batches(self, stop: StopRequest) -> Iterator[ReductionBatch]:
        """Yield the batches of stage after stage."""
        for stage in self._stages:
            with closing(self._passes(stage.feed, stop)) as batches:
                while stage is self._stages[-1] or self._spent() < stage.until:
                    yield next(batches)

    def _passes(self, feed: Feed, stop: StopRequest) -> Generator[ReductionBatch]:
        """Yield the batches of pass after pass; a single rank's wait for a batch in `follow` mode ends on `stop`.

        With several ranks the wait is not interrupted, because a rank that left alone would block the others. There the
        feed ends by itself, on every rank after the same batch (`consumers.training.rank_passes`).

        Raises:
            Stopped: a feed in `follow` mode ended because of `stop`.
        """
        follows = feed.spec.mode == "follow"
        breaks_in = follows and self._ranks.world == 1
        empty_passes = 0
        # One empty pass is not an error: a checkpoint may have been made at the very end of a pass.
        while empty_passes < 2:
            with closing(cast(Generator[ReductionBatch], iter(feed))) as batches:
                for taken in itertools.count():
                    # A signal between the feed's yield and our receiving the batch must not lose the batch.
                    self._interrupted = self._feeds_at() if follows else None
                    with stop.waiting() if breaks_in else nullcontext():
                        batch = next(batches, None)
                    if batch is None and follows:
                        # The feed has already started over. `_interrupted` is its state before, for a resumed run.
                        raise Stopped
                    self._interrupted = None
                    if batch is None:
                        empty_passes = 0 if taken else empty_passes + 1
                        break
                    yield batch
        raise FeedError(
            f"{', '.join(feed.topics)}: no rows of split {feed.spec.split} with at most {feed.max_tokens} tokens, "
            f"or too few for a batch of least_rows {feed.spec.least_rows}: produce more, or raise max_tokens"
        )

    def _feeds_at(self) -> list[_FeedAt]:
        return [_FeedAt.of(stage.feed) for stage in self._stages]

    def _spent(self) -> float:
        return self._options.budget.spent(self.counters.steps, self.counters.elapsed_s)

    def _step(self, batch: ReductionBatch, began: float, started: float, stop: StopRequest) -> Step:
        options, counters = self._options.optimisation, self.counters
        rate = options.learning_rate * self._options.budget.rate(
            counters.steps, counters.elapsed_s, options.warmup_steps
        )
        for group in self._learner.optimizer.param_groups:
            group["lr"] = rate
        moved = batch.to(self._ranks.device)
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=options.bf16):
            logits = self._forward(moved.tokens, moved.attention_mask)
        sums = loss_sums(logits, moved, options.label_smoothing)
        sums.of_global(batch.global_rows, self._ranks.world).backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self._model.parameters(), options.clip_norm)
        self._learner.optimizer.step()
        self._learner.optimizer.zero_grad(set_to_none=True)

        real, every = batch.real_tokens, batch.attention_mask.numel()
        # All ranks use rank 0's clock, so that they agree on whether the time is over.
        elapsed_s = time.perf_counter() - began if self._ranks.first else 0.0
        mine = [sums.total.item(), len(batch), real, every, float(stop.requested), elapsed_s]
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
            too_long=batch.too_long,
        )
        step = Step(
            number=self.counters.steps,
            loss=total / max(batch.global_rows, 1),
            learning_rate=rate,
            gradient_norm=norm.item(),
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


@dataclass(frozen=True)
class _FeedAt:
    """A feed's state and manifest at one moment."""

    state: dict[str, Any]
    manifest: dict[str, Any] | None

    @classmethod
    def of(cls, feed: Feed) -> _FeedAt:
        # In follow mode the order depends on when rows arrived, so there is no manifest.
        return cls(feed.state_dict(), None if feed.spec.mode == "follow" else feed.manifest())


def _feed_settings(stages: Sequence[CurriculumStage]) -> dict[str, Any]:
    """Return the settings that decide a run's batches, besides the topic, by name."""
    names = ("mode", "split", "batch_size", "batch_tokens", "max_tokens", "shuffle_seed", "window_rows", "bucket")
    curriculum = [[stage.until, stage.feed.max_tokens] for stage in stages[:-1]]
    return {**{name: getattr(stages[-1].feed.spec, name) for name in names}, "curriculum": curriculum}


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


def _config(options: TrainOptions, checkpoint: Path | None) -> SpanPredictorConfig:
    """Return the model's sizes: the checkpoint's, with those of the options, which `check_settings` compares."""
    if checkpoint is None:
        return SpanPredictorConfig(**options.model)
    return load_config(checkpoint, **options.model)


def _sizes(config: SpanPredictorConfig) -> dict[str, Any]:
    named = inspect.signature(SpanPredictorConfig.__init__).parameters
    return {name: getattr(config, name) for name in named if name not in ("self", "kwargs")}


def _optimizer(model: nn.Module, options: Optimisation) -> torch.optim.Optimizer:
    """Return AdamW with weight decay on matrices only, not on norms and biases."""
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, fused=True)
