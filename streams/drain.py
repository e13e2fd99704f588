"""Wait until all that is in raw is refined, and its ledger folded.

Takes a connection and a family; gives nothing but time. Offsets lie about work left: transaction markers take some up,
and a transaction's records stand behind the end that readers see until its markers have arrived. So each look

1. reads the positions that the refine workers have committed for raw;
2. asks that no raw partition has an open transaction: whatever was written before 1, rerouted and augmented rows among
   it, is now decided;
3. asks that no record stands in raw at or after the positions of 1, and that none was removed there: what retention
   took before it was refined is still to be counted as lost;
4. asks the same of the ledger, at the positions that coverage has folded.

With nothing left in 3, no worker can have written anything since 1, so that one look without a finding is proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.clients import Connection
from broker.holdups import member_count, open_transactions
from broker.kept_clients import keeping_clients
from broker.topics import ensure_topics, extents, has_records, topic_name, undecided
from schema.errors import DrainTimeoutError, RowsLostError
from schema.record import LEDGER, RAW
from schema.registry import family_named
from streams.coverage.client import open_coverage
from streams.positions import bound_positions, worker_group

_LOOK_INTERVAL_S = 0.3
# A worker commits several times a second; positions that stand still this long have nobody to move them.
_STILL_S = 10.0


@dataclass(frozen=True)
class DrainProgress:
    """What is left, in offsets by partition: an upper bound on records, for transaction markers take up offsets too.

    `positions` are the refine workers' own; the ledger is looked at once nothing is left in raw. `rows_lost` is what
    retention removed from raw before it was refined, in all.
    """

    raw: Mapping[int, int] = field(default_factory=dict)
    ledger: Mapping[int, int] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)
    rows_lost: int = 0

    @property
    def offsets_left(self) -> int:
        """Offsets left in raw and ledger together."""
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

    `on_progress` is told after each look, some three times a second.

    Raises:
        UnknownFamilyError: no such family.
        RowsLostError: it is drained, but retention removed raw records before they were refined; not if `accept_lost`.
        DrainTimeoutError: something was left after `timeout_s`; says what, and whether workers seem to run.
        CoverageError: nobody can fold.
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
                    f"refined: see `feedmill audit {family}`; --accept-lost drains all the same"
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
    """Return the offsets at or after `positions` by partition, of those where a record stands or may yet appear."""
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
    """Return how many offsets were removed at or after `positions`, by partition; partitions with none are absent."""
    begins = {partition: extent.begin for partition, extent in extents(connection, topic).items()}
    return {
        partition: begin - positions.get(partition, 0)
        for partition, begin in begins.items()
        if begin > positions.get(partition, 0)
    }


def _what_is_left(
    connection: Connection, family: str, progress: DrainProgress, timeout_s: float, still_s: float
) -> str:
    """Return what keeps the family from being drained, and what to do: in this order,

    an open transaction, because nothing after it can be read; no worker; workers that do not move; too little time.
    """
    stage, left = (RAW, progress.raw) if progress.raw else (LEDGER, progress.ledger)
    listed = ", ".join(f"{count} in partition {partition}" for partition, count in sorted(left.items()))
    line = f"{family} is not drained after {timeout_s:g} s: offsets left in {stage}: {listed}"
    if stage == LEDGER:
        return f"{line}; see that the coverage service runs and folds (`feedmill doctor`)"
    opened = open_transactions(connection, topic_name(connection.settings, family, RAW))
    if opened:
        more = f" and {len(opened) - 1} more" if len(opened) > 1 else ""
        return f"{line}; readers wait for {opened[0]}{more}: end that producer, or wait until Kafka aborts it"
    if still_s >= min(_STILL_S, timeout_s):
        members = member_count(connection, worker_group(connection.settings))
        if members == 0:
            return f"{line}; no worker runs: start `feedmill worker`"
        who = "the workers" if members is None else f"{members} worker(s) of the group"
        return (
            f"{line}; refining did not move for {still_s:.0f} s though {who} may run: see their logs, `feedmill doctor`"
        )
    return f"{line}; refining moves: give it more with --timeout"
