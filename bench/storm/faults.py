"""The faults of a storm: their kinds, targets and times; the same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

WORKER_KILL = "worker_kill"
WORKER_PAUSE = "worker_pause"
COVERAGE_KILL = "coverage_kill"
COVERAGE_PAUSE = "coverage_pause"
BROKER_KILL = "broker_kill"
BROKER_PAUSE = "broker_pause"
COMMIT_FAILURE = "commit_failure"
KINDS = (WORKER_KILL, WORKER_PAUSE, COVERAGE_KILL, COVERAGE_PAUSE, BROKER_KILL, BROKER_PAUSE, COMMIT_FAILURE)

# Order to a worker: its next commit fails, and it receives SIGTERM during that commit.
STOP = "stop"

# Below and above the workers' session timeout (6 s), after which a paused worker loses its partitions.
_PAUSE_S = (2.0, 10.0)
_BROKER_PAUSE_S = (1.0, 6.0)
_BROKER_DOWN_S = (0.0, 3.0)
_GAP_S = (1.0, 4.0)
# Share of faults that come while the service still recovers from the one before.
_OVERLAP_SHARE = 0.25


@dataclass(frozen=True)
class InjectedFault:
    """One fault.

    Attributes:
        gap_s: the time without a fault before this one.
        lasts_s: how long a pause lasts, or how long a killed broker stays down.
        target: the number of the worker, 0 or 1.
        overlaps: whether the next fault may come before the service has recovered from this one.
    """

    kind: str
    gap_s: float
    lasts_s: float
    target: int
    overlaps: bool


def plan(seed: int) -> Iterator[InjectedFault]:
    """Yield faults without end: each kind once in each round, in a random order; there is one commit failure."""
    rng = random.Random(seed)  # noqa: S311  a plan that can be repeated is the point
    # The commit failure comes early, so that short storms have it, too.
    kinds = [*rng.sample([kind for kind in KINDS if kind != COMMIT_FAILURE], len(KINDS) - 1)]
    kinds.insert(rng.randrange(2), COMMIT_FAILURE)
    while True:
        for kind in kinds:
            lasts = {BROKER_KILL: _BROKER_DOWN_S, BROKER_PAUSE: _BROKER_PAUSE_S}.get(kind, _PAUSE_S)
            gap_s, lasts_s, target = rng.uniform(*_GAP_S), rng.uniform(*lasts), rng.randrange(2)
            yield InjectedFault(kind, gap_s, lasts_s, target, overlaps=rng.random() < _OVERLAP_SHARE)
        kinds = rng.sample([kind for kind in KINDS if kind != COMMIT_FAILURE], len(KINDS) - 1)
