"""Wait until a family's raw records are all refined and its ledger is folded.

Takes a connection and a family; returns when everything is drained. Offset differences do not show the work left.
Transaction markers take up offsets, and readers see a transaction's records only after its markers. So each check

1. reads the positions that the refine workers have committed for raw;
2. requires that no raw partition has an open transaction. Then everything written before step 1 is decided, rerouted
   and augmented rows included;
3. requires that raw has no record at or after the positions of step 1, and that retention removed none there. Offsets
   removed before they were refined must first be counted as lost;
4. requires the same of the ledger, at the positions that coverage has folded.

If nothing is left in step 3, no worker can have written anything since step 1. So one such check is proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.clients import Connection
from broker.committed import has_records
from broker.holdups import group_members, open_transactions
from broker.kept_clients import keeping_clients
from broker.topics import ensure_topics, extents, topic_name, undecided
from schema.errors import DrainTimeoutError, RowsLostError
from schema.record import LEDGER, RAW
from schema.registry import family_named
from streams.coverage.client import open_coverage
from streams.positions import bound_positions, worker_group

_LOOK_INTERVAL_S = 0.3
# A worker commits several times a second; if positions do not move for this long, no worker is moving them.
_STILL_S = 10.0


@dataclass(frozen=True)
class DrainProgress:
    """The work left, in offsets by partition.

    Offsets are an upper bound on records, because transaction markers take up offsets too.

    Attributes:
        raw: offsets left in raw.
        ledger: offsets left in the ledger; checked once nothing is left in raw.
        positions: the positions that the refine workers have committed for raw.
        rows_lost: offsets that retention removed from raw before they were refined, in all.
    """

    raw: Mapping[int, int] = field(default_factory=dict)
    ledger: Mapping[int, int] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)
    rows_lost: int = 0

    @property
    def offsets_left(self) -> int:
        """The offsets left in raw and ledger together."""
        return sum(self.raw.values()) + sum(self.ledger.values())


@keeping_clients
def drain(
    connection: Connection,
    family: str,
    timeout_s: float,
    on_progress: Callable[[DrainProgress], None] | None = None,
    *,
    accept_lost: bool = False,
) -> None:
    """Return once all committed records in the raw topic of `family` are refined and folded.

    `on_progress` is called after each check, some three times a second.

    Raises:
        UnknownFamilyError: no such family.
        RowsLostError: the family is drained, but retention removed raw records before they were refined. Not raised if
            `accept_lost` is True.
        DrainTimeoutError: work was left after `timeout_s`; the message names the work and the likely cause.
        CoverageError: the ledger cannot be folded.

    Example::

        drain(connection, "reduction", timeout_s=120)
    """
    family_named(family)
    ensure_topics(connection, [family])
    now = time.monotonic()
    deadline, moved_at, last = now + timeout_s, now, DrainProgress()
    while True:
        progress = _look(connection, family)
        if on_progress is not None:
            on_progress(progress)
        if not progress.offsets_left:
            if progress.rows_lost and not accept_lost:
                raise RowsLostError(
                    f"{family} is drained, but retention removed {progress.rows_lost} offsets of raw before they were "
                    f"refined: see `feedmill audit {family}`, or accept the loss with --accept-lost"
                )
            return
        now = time.monotonic()
        if progress.positions != last.positions or not progress.raw:
            moved_at = now
        last = progress
        if now >= deadline:
            raise DrainTimeoutError(_what_is_left(connection, family, progress, timeout_s, now - moved_at))
        time.sleep(min(_LOOK_INTERVAL_S, deadline - now))


def _look(connection: Connection, family: str) -> DrainProgress:
    settings = connection.settings
    topic = topic_name(settings, family, RAW)
    positions = bound_positions(connection, family)  # 1
    raw = _left(connection, topic, positions) | _removed(connection, topic, positions)  # 2, 3
    if raw:
        return DrainProgress(raw=raw, positions=positions)
    with open_coverage(connection) as coverage:
        folded = coverage.positions(family)
        ledger = _left(connection, topic_name(settings, family, LEDGER), folded)  # 4
        lost = 0 if ledger else int(coverage.report(family)["rows_lost"])
    return DrainProgress(ledger=ledger, positions=positions, rows_lost=lost)


def _left(connection: Connection, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
    """Return how many offsets are left at or after `positions`, by partition.

    Partitions without a record there, and without an open transaction that may add one, are absent.
    """
    behind = undecided(connection, topic)
    ends = extents(connection, topic)
    starts = {partition: max(positions.get(partition, 0), extent.begin) for partition, extent in ends.items()}
    waiting = has_records(connection, topic, starts)
    return {
        partition: extent.end - starts[partition] + behind.get(partition, 0)
        for partition, extent in ends.items()
        if waiting[partition] or partition in behind
    }


def _removed(connection: Connection, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
    """Return how many offsets retention removed at or after `positions`; partitions without any are absent."""
    begins = {partition: extent.begin for partition, extent in extents(connection, topic).items()}
    return {
        partition: begin - positions.get(partition, 0)
        for partition, begin in begins.items()
        if begin > positions.get(partition, 0)
    }


def _what_is_left(
    connection: Connection, family: str, progress: DrainProgress, timeout_s: float, still_s: float
) -> str:
    """Return the error line: the offsets left, the likely cause, and the next command.

    The first cause that applies is named: an unfolded ledger, an open transaction (readers cannot pass it), no worker,
    partitions that no worker reads, workers that do not move, too short a timeout.
    """
    stage, left = (RAW, progress.raw) if progress.raw else (LEDGER, progress.ledger)
    listed = ", ".join(f"{count} in partition {partition}" for partition, count in sorted(left.items()))
    line = f"{family} is not drained after {timeout_s:g} s: offsets left in {stage}: {listed}"
    if stage == LEDGER:
        return f"{line}; check that the coverage service runs and folds (`feedmill doctor`)"
    topic = topic_name(connection.settings, family, RAW)
    opened = open_transactions(connection, topic)
    if opened:
        others = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
        return f"{line}; readers wait for {opened[0]}{others}: end that producer, or wait until Kafka aborts it"
    if still_s >= min(_STILL_S, timeout_s / 2):
        members = group_members(connection, worker_group(connection.settings))
        if members is not None and not members.count:
            return f"{line}; no worker is in the consumer group: start `feedmill worker`"
        assigned = members.assigned.get(topic) if members is not None else None
        unread = sorted(left.keys() - assigned) if assigned else []
        if unread:
            return (
                f"{line}; no worker reads partition {', '.join(map(str, unread))}: workers find partitions that were "
                "added when they start, so restart them"
            )
        workers = "workers" if members is None else f"{members.count} worker(s) of the consumer group"
        return (
            f"{line}; refining did not move for {still_s:.0f} s though {workers} may run: see their logs and "
            "`feedmill doctor`"
        )
    return f"{line}; refining moves: give it more time with --timeout"
