"""The rows that judge a run: drawn once, from a split that the run does not learn from."""

from __future__ import annotations

from typing import Any

from consumers.batches import Batch
from consumers.feed import Feed, FeedOptions
from schema.errors import UsageError

# The split that judges a run, by the split that the run learns from; the two always differ.
_JUDGED_BY = {"train": "val", "test": "val", "val": "test"}

# Rows are drawn from a window this many times their number, because neighbours in a topic resemble each other.
_WINDOW = 8


def judging_split(split: str | None) -> str:
    """Return the split whose rows judge a run that learns from `split`: val, or test for a run that learns from val.

    Raises:
        UsageError: the run learns from all splits, so no held-out row is left.
    """
    if split is None:
        raise UsageError(
            "the feed has split None, so the run would be judged by rows that it learns from: "
            "give the feed split='train'"
        )
    return _JUDGED_BY[split]


class HeldOut:
    """Rows of another split from the sources of a training feed, within its limits: see `judging_split`.

    Args:
        feed: the training feed.
        rows: number of rows; fewer if the split has fewer.
        seed: seed of the draw.
        state: of an earlier `HeldOut`, for the same rows; None draws from the topic as it is now.

    Attributes:
        state: small and JSON-able; with the same seed and number it gives the same rows again.
        batch: the rows in drawn order; None if the split has none.

    Raises:
        UsageError: the feed reads all splits.
        FeedError: the topic no longer holds the offsets of `state`.
    """

    def __init__(self, feed: Feed, rows: int, seed: int, state: dict[str, Any] | None = None) -> None:
        drawn = Feed(
            feed.connection,
            feed.family.name,
            split=judging_split(feed.split),
            batch_size=rows,
            shuffle_seed=seed,
            options=FeedOptions(
                sources=feed.options.sources,
                where=feed.options.where,
                max_tokens=feed.max_tokens,
                form=feed.options.form,
                window_rows=rows * _WINDOW,
                leave_out_retracted=feed.options.leave_out_retracted,
            ),
        )
        if state is not None:
            drawn.load_state_dict(state)
        self.state = drawn.state_dict()
        self.batch: Batch | None = next(iter(drawn), None)
