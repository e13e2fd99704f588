"""Make ranks follow a topic together: rank 0 decides the offsets of every pass and the end, and the others copy it.

Ranks that each looked for new records would see different offsets, and would wait for one another inside a step. With
the same passes they make the same global batches, share each batch as in a snapshot, and have the same state.

The ranks exchange messages through torchrun's key-value store:

1. Rank 0 writes pass n under `<name>/pass/<n>`: its cursor, an error, or the end.
2. The others poll that key. Polling blocks no other rank, so a rank may wait for hours.
3. A rank that gets a stop signal while it waits writes `<name>/stop`. Rank 0 polls that key and writes the end.
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
    """The agreed passes of one feed in `follow` mode; every rank makes one for each of its feeds.

    Args:
        ranks: this process and the other ranks.
        name: the feed's name: the same on every rank, and different from other feeds' names.
        stop: ends the passes as soon as any rank gets a stop signal.
    """

    def __init__(self, ranks: Ranks, name: str, stop: StopRequest) -> None:
        self._ranks, self._name, self._stop = ranks, name, stop
        self._number = 0

    def agreed(self, own: Iterator[Cursor | None]) -> Iterator[Cursor | None]:
        """Yield None until rank 0 has the next pass, and then its cursor; end when the run must stop.

        Args:
            own: the passes that this rank finds by itself; only rank 0 uses them.

        Raises:
            FeedmillError: the error that ended `own` on rank 0; a `FeedError` with the same line on the other ranks.
        """
        number = self._number
        self._number += 1
        yield from self._led(own, number) if self._ranks.first else self._taken_over(number)

    def _led(self, own: Iterator[Cursor | None], number: int) -> Iterator[Cursor | None]:
        try:
            for following in own:
                if self._stop.requested or self._ranks.look(f"{self._name}/stop") is not None:
                    self._publish(number, {"end": True})
                    return
                if following is not None:
                    self._publish(number, {"cursor": cursor_to_json(following)})
                yield following
        except FeedmillError as error:
            self._publish(number, {"error": str(error)})
            raise

    def _taken_over(self, number: int) -> Iterator[Cursor | None]:
        asked = False
        while (text := self._ranks.look(self._key(number))) is None:
            if self._stop.requested and not asked:
                self._ranks.publish(f"{self._name}/stop", "1")
                asked = True
            time.sleep(_LOOK_INTERVAL_S)
            yield None
        message: dict[str, Any] = json.loads(text)
        if "error" in message:
            raise FeedError(message["error"])
        if "cursor" in message:
            yield cursor_from_json(message["cursor"])

    def _publish(self, number: int, message: dict[str, Any]) -> None:
        self._ranks.publish(self._key(number), json.dumps(message))

    def _key(self, number: int) -> str:
        return f"{self._name}/pass/{number}"
