"""Measures how long each fault stops the work: a fault is over once all positions move again."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.storm import faults
from broker.clients import Connection
from broker.topics import committed_positions, topic_name
from schema.errors import FeedmillError
from schema.record import RAW
from streams.coverage.client import ServiceCoverage
from streams.coverage.owner import coverage_folder, service_address
from streams.positions import position_group

_LOOK_INTERVAL_S = 0.2
_OF_COVERAGE = frozenset({faults.COVERAGE_KILL, faults.COVERAGE_PAUSE})
_OF_ALL = frozenset({faults.BROKER_KILL, faults.BROKER_PAUSE})


@dataclass(frozen=True)
class _Pending:
    kind: str
    began: float
    refined: Mapping[int, int]
    folded: int


class RecoveryClock:
    """Measures, for each fault, the seconds until work moves again.

    A fault of a worker is over when every raw partition has a later position than before. A fault of the coverage
    service is over when the service answers and has folded more than before. A fault of the broker is over when both
    conditions hold.
    """

    def __init__(self, connection: Connection, family: str) -> None:
        self._connection = connection
        self._family = family
        self._topic = topic_name(connection.settings, family, RAW)
        self._refined: Mapping[int, int] = {}
        self._folded = 0
        self._pending: list[_Pending] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm-recovery", daemon=True)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.unrecovered: list[str] = []

    def start(self) -> None:
        """Start the thread that looks at the positions."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; faults that are not over are listed in `unrecovered`."""
        self._stop.set()
        self._thread.join()
        self.unrecovered = [pending.kind for pending in self._pending]

    def begin(self, kind: str) -> None:
        """Start the clock for a fault that happens now."""
        with self._lock:
            self._pending.append(_Pending(kind, time.monotonic(), dict(self._refined), self._folded))

    @property
    def is_waiting(self) -> bool:
        """Whether some fault is not over yet."""
        return bool(self._pending)

    @property
    def is_moving(self) -> bool:
        """Whether every partition has been refined, and coverage has folded entries."""
        return bool(self._folded) and len(self._refined) > 0 and all(self._refined.values())

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return {kind: {faults, median_s, max_s}}."""
        return {
            kind: {
                "faults": len(seconds),
                "median_s": round(statistics.median(seconds), 1),
                "max_s": round(max(seconds), 1),
            }
            for kind, seconds in sorted(self.seconds.items())
        }

    def _run(self) -> None:
        while not self._stop.wait(_LOOK_INTERVAL_S):
            self._look()
            now = time.monotonic()
            with self._lock:
                over = [pending for pending in self._pending if self._is_over(pending)]
                self._pending = [pending for pending in self._pending if pending not in over]
            for pending in over:
                self.seconds[pending.kind].append(now - pending.began)

    def _is_over(self, pending: _Pending) -> bool:
        refined = all(offset > pending.refined.get(number, 0) for number, offset in self._refined.items())
        folded = self._folded > pending.folded
        if pending.kind in _OF_ALL:
            return refined and folded
        return folded if pending.kind in _OF_COVERAGE else refined

    def _look(self) -> None:
        settings = self._connection.settings
        try:
            group = position_group(settings, self._family)
            self._refined = committed_positions(self._connection, group, self._topic)
        except FeedmillError:
            pass
        try:
            address = service_address(coverage_folder(settings))
            if address is not None:
                positions = ServiceCoverage(address.url, settings).positions(self._family)
                self._folded = sum(positions.values())
        except FeedmillError:
            pass
