"""The stages of a run, each with a feed: their batches one after the other, and the states from which they resume."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from consumers.batches import Batch
from consumers.feed import Feed
from consumers.training.ranks import Ranks
from consumers.training.stopping import Stopped, StopRequest
from schema.errors import FeedError, UsageError

# Settings of a feed that decide a run's batches, besides the topic.
_SETTINGS = ("mode", "split", "batch_size", "batch_tokens", "max_tokens", "shuffle_seed", "window_rows", "bucket")


@dataclass(frozen=True, eq=False)
class CurriculumStage:
    """A feed of easier rows for the beginning of a run.

    Attributes:
        feed: this rank's feed, like that of the run.
        until: the share of the budget, in (0, 1), after which the next stage begins.
    """

    feed: Feed
    until: float


@dataclass(frozen=True)
class FeedPlace:
    """A feed's state and manifest at one moment.

    Attributes:
        state: the feed's `state_dict()`.
        manifest: None in `follow` mode, whose order depends on when rows arrived.
    """

    state: dict[str, Any]
    manifest: dict[str, Any] | None


class StageFeeds:
    """The feeds of a run on one rank.

    Args:
        stages: in order; the last stage lasts to the end of the run.
        ranks: this process and the other ranks.

    Raises:
        UsageError: ranks follow a topic without agreeing on passes.
    """

    def __init__(self, stages: Sequence[CurriculumStage], ranks: Ranks) -> None:
        for stage in stages:
            if ranks.world > 1 and stage.feed.spec.mode == "follow" and stage.feed.options.together is None:
                raise UsageError(
                    f"{ranks.world} ranks each follow a topic by themselves, so their batches do not fit together: "
                    "give every feed `FeedOptions(together=RankPasses(...))`"
                )
        self._stages, self._ranks = stages, ranks
        self._before_wait: list[FeedPlace] | None = None

    @property
    def feed(self) -> Feed:
        """The last stage's feed."""
        return self._stages[-1].feed

    @property
    def count(self) -> int:
        """Number of stages."""
        return len(self._stages)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide a run's batches, besides the topic, by name."""
        curriculum = [[stage.until, stage.feed.max_tokens] for stage in self._stages[:-1]]
        return {**{name: getattr(self.feed.spec, name) for name in _SETTINGS}, "curriculum": curriculum}

    @property
    def places(self) -> list[FeedPlace]:
        """Each stage's place, after the batches of the last finished step."""
        return self._before_wait or [
            FeedPlace(stage.feed.state_dict(), None if stage.feed.spec.mode == "follow" else stage.feed.manifest())
            for stage in self._stages
        ]

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Set each stage's feed to a saved state.

        Raises:
            ValueError: there are not as many states as stages.
            FeedError: a feed cannot continue from its state.
        """
        for stage, state in zip(self._stages, states, strict=True):
            stage.feed.load_state_dict(state)

    def agree(self) -> None:
        """Set the feeds of all ranks to rank 0's states, because ranks may have made them at different end offsets."""
        for stage in self._stages:
            stage.feed.load_state_dict(self._ranks.share(stage.feed.state_dict()))

    def steps(self, count: int, spent: Callable[[], float], stop: StopRequest) -> Iterator[list[Batch]]:
        """Yield the `count` batches of each step, stage after stage, without end.

        Args:
            count: batches of a step.
            spent: returns the share of the budget that is used up.
            stop: interrupts a wait for rows in `follow` mode. The places are then those before the unfinished step.

        Raises:
            Stopped: a feed in `follow` mode ended because of `stop`.
            FeedError: a feed has no rows, or fails while it is read.
        """
        batches = self._batches(spent, stop)
        while True:
            if any(stage.feed.spec.mode == "follow" for stage in self._stages):
                # A signal while we wait must not lose the batches of a step that was not taken.
                self._before_wait = self.places
            taken = [next(batches) for _ in range(count)]
            self._before_wait = None
            yield taken

    def _batches(self, spent: Callable[[], float], stop: StopRequest) -> Iterator[Batch]:
        for stage in self._stages:
            with closing(self._passes(stage.feed, stop)) as batches:
                while stage is self._stages[-1] or spent() < stage.until:
                    yield next(batches)

    def _passes(self, feed: Feed, stop: StopRequest) -> Generator[Batch]:
        """Yield the batches of pass after pass; a single rank's wait for a batch in `follow` mode ends on `stop`.

        With several ranks the wait is not interrupted, because a rank that left alone would block the others. There the
        feed ends by itself, on every rank after the same batch (`consumers.training.rank_passes`).
        """
        follows = feed.spec.mode == "follow"
        breaks_in = follows and self._ranks.world == 1
        empty_passes = 0
        # One empty pass is not an error: a checkpoint may have been made at the very end of a pass.
        while empty_passes < 2:
            with closing(cast(Generator[Batch], iter(feed))) as batches:
                for taken in itertools.count():
                    with stop.waiting() if breaks_in else nullcontext():
                        batch = next(batches, None)
                    if batch is None and follows:
                        # The feed has already started over; `places` still has its state before.
                        raise Stopped
                    if batch is None:
                        empty_passes = 0 if taken else empty_passes + 1
                        break
                    yield batch
        raise FeedError(
            f"{', '.join(feed.topics)}: no rows of split {feed.spec.split} with at most {feed.max_tokens} tokens, "
            f"or too few for a batch of least_rows {feed.spec.least_rows}: produce more, or raise max_tokens"
        )
