"""Ranks that follow a topic together: rank 0 decides the offsets of every pass and the end, the others take them over.

Ranks that each looked for new records by themselves would see different offsets, and would wait for one another inside
a step. With the same passes they make the same global batches, share each of them as in a snapshot, and have one state.

The ranks tell one another through the key-value store that torchrun gives them, under three kinds of keys:

1. Rank 0 writes pass n under `<name>/pass/<n>`: its cursor, an error, or the end.
2. The others look for that key. Looking holds nothing up, so a rank may wait for hours.
3. A rank that is told to stop while it waits writes `<name>/stop`. Rank 0 looks for that key and writes the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from consumers.sequence.cursor import Cursor
from consumers.sequence.spec import cursor_from_json, cursor_to_json
from consumers.training.ranks import Ranks
from consumers.training.stopping import StopRequest
from schema.errors import FeedError, FeedmillError

_LOOK_INTERVAL_S = 0.1


class RankPasses:
    """The passes of one feed that follows, as ranks agree on them; one for each feed of each rank.

    Args:
        ranks: this process among its fellows.
        name: of the feed, the same on every rank and of no other feed.
        stop: ends the passes once any rank is told to stop.
    """

    def __init__(self, ranks: Ranks, name: str, stop: StopRequest) -> None:
        self._ranks, self._name, self._stop = ranks, name, stop
        self._number = 0

    def agreed(self, own: Iterator[Cursor | None]) -> Iterator[Cursor | None]:
        """Yield None until rank 0 has the next pass, and then its cursor; end where the run is to stop.

        Args:
            own: what this rank finds by itself; only rank 0 looks.

        Raises:
            FeedmillError: what ended rank 0's search; a `FeedError` with the same line on the other ranks.
        """
        number = self._number
        self._number += 1
        yield from self._led(own, number) if self._ranks.first else self._taken_over(number)

    def _led(self, own: Iterator[Cursor | None], number: int) -> Iterator[Cursor | None]:
        try:
            for following in own:
                if self._stop.requested or self._ranks.look(f"{self._name}/stop") is not None:
                    self._tell(number, {"end": True})
                    return
                if following is not None:
                    self._tell(number, {"cursor": cursor_to_json(following)})
                yield following
        except FeedmillError as error:
            self._tell(number, {"error": str(error)})
            raise

    def _taken_over(self, number: int) -> Iterator[Cursor | None]:
        asked = False
        while (text := self._ranks.look(self._key(number))) is None:
            if self._stop.requested and not asked:
                self._ranks.tell(f"{self._name}/stop", "1")
                asked = True
            time.sleep(_LOOK_INTERVAL_S)
            yield None
        told: dict[str, Any] = json.loads(text)
        if "error" in told:
            raise FeedError(told["error"])
        if "cursor" in told:
            yield cursor_from_json(told["cursor"])

    def _tell(self, number: int, told: dict[str, Any]) -> None:
        self._ranks.tell(self._key(number), json.dumps(told))

    def _key(self, number: int) -> str:
        return f"{self._name}/pass/{number}"
