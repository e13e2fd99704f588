"""Types of a checkpoint's trainer.json, checked before use."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from consumers.training.budget import Budget
from consumers.training.report import Counters


class SavedSettings(BaseModel):
    """The settings that a resumed run takes over unless it sets others."""

    mode: Literal["snapshot", "follow"]
    split: str | None
    batch_size: int | None
    batch_tokens: int | None
    max_tokens: int
    seed: int
    learning_rate: float
    bf16: bool
    curriculum: list[tuple[float, int]]


class Ancestor(BaseModel):
    """A checkpoint whose weights a run began with, directly or by way of later checkpoints.

    Attributes:
        checkpoint: its folder when the run began.
        feed: the state of its run's feed, which says what it was trained on; None if the checkpoint has none.
    """

    checkpoint: str
    feed: dict[str, Any] | None


class SavedRun(BaseModel):
    """The keys of trainer.json; the feeds check their own states.

    Attributes:
        random: state of the random generator of rank 0's CPU.
        more_random: states of the other generators, by the names of `consumers.training.random_states`.
        ancestors: the oldest first; empty for a run that began from its seed.
    """

    counters: Counters
    settings: SavedSettings
    budget: Budget
    lessons: list[dict[str, Any]]
    feed: dict[str, Any]
    held_out: dict[str, Any]
    random: str
    more_random: dict[str, str] = {}
    ancestors: list[Ancestor] = []
