"""A DataLoader over a feed, with a state: that of the last batch taken, not of the batches that workers made ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Any, Protocol, cast

from torch.utils.data import DataLoader, Dataset

from consumers.batches import Batch
from consumers.loader_workers import LoaderWorkers


class LoadedFeed(Protocol):
    """What a loader needs of a feed, which is a torch dataset of batches; see `consumers.feed.Feed`."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of one pass."""
        ...

    def taken_from_workers(self, start: Callable[[], Iterator[Batch]], shared: LoaderWorkers) -> Iterator[Batch]:
        """Yield the batches of one pass that workers make, and move the feed's state along."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last batch taken."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue after the batch at which the state was saved."""
        ...


class FeedLoader(DataLoader[Batch]):
    """Batches of a feed, made in worker processes; a pass yields the same batches as the feed, in the same order.

    Args:
        feed: the feed; taking a batch from the loader moves its state along.
        workers: number of processes; 0 makes batches in this process.
    """

    def __init__(self, feed: LoadedFeed, workers: int) -> None:
        dataset = cast(Dataset[Batch], feed)
        super().__init__(dataset, batch_size=None, num_workers=workers, multiprocessing_context=clean_start(workers))
        # The base class keeps the feed as `dataset`, typed as any dataset.
        object.__setattr__(self, "feed", feed)
        self.feed: LoadedFeed

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch promises its own iterator class
        if not self.num_workers:
            return iter(self.feed)
        context: BaseContext = self.multiprocessing_context
        return self.feed.taken_from_workers(super().__iter__, LoaderWorkers(context, self.num_workers))

    def state_dict(self) -> dict[str, Any]:
        """Return the feed's state after the last batch taken from this loader."""
        return self.feed.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue after the batch at which the state was saved; raises the errors of `Feed.load_state_dict`."""
        self.feed.load_state_dict(state_dict)


def clean_start(workers: int) -> BaseContext | None:
    """Return how to start workers: forked from a process that has only imported the feed, or else spawned."""
    if not workers:
        return None
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["consumers.feed"])
    return context
