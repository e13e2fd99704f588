"""Runs a storm: starts everything, injects the planned faults, drains, audits, and returns the figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.storm.crew import PARTITIONS, Crew, crew
from bench.storm.faults import InjectedFault, plan
from bench.storm.recovery import RecoveryClock
from bench.storm.traffic import ForeignTraffic
from schema.errors import DrainTimeoutError, FeedmillError
from schema.reduction import FAMILY
from streams.audit.report import AuditReport
from streams.audit.run import audit
from streams.drain import drain

_MINUTES = 3.0
_SEED = 1
_START_LIMIT_S = 180.0
# A fault that is not over after this time is reported, and the storm continues.
_RECOVERY_LIMIT_S = 90.0
_DRAIN_LIMIT_S = 300.0
_LOOK_INTERVAL_S = 0.1

# Called with the seconds of storm that have passed, and a note about the current step.
OnProgress = Callable[[float, str], None]


def run(
    minutes: float = _MINUTES,
    seed: int = _SEED,
    on_progress: OnProgress = lambda done_s, note: None,
    logs: Path | None = None,
) -> dict[str, Any]:
    """Run a storm of that many minutes and return its figures; `ok` says whether the audit was exact.

    `logs` is a folder that keeps the logs of all processes; by default they are deleted.
    """
    with crew(logs) as hands:
        traffic = ForeignTraffic(hands.connection, PARTITIONS, seed)
        clock = RecoveryClock(hands.connection, FAMILY.name)
        hands.start()
        traffic.start()
        clock.start()
        began = time.monotonic()
        try:
            _wait(lambda: clock.is_moving, _START_LIMIT_S)
            stormed_at = time.monotonic()
            struck = _storm(hands, clock, seed, minutes * 60, on_progress)
            stormed_s = time.monotonic() - stormed_at
            _wait(lambda: not clock.is_waiting, _RECOVERY_LIMIT_S)
        finally:
            traffic.stop()
            clock.stop()
        hands.stop_producing()
        on_progress(minutes * 60, "draining")
        drained_at = time.monotonic()
        drained = _drained(hands)
        drain_s = time.monotonic() - drained_at
        report = audit(hands.connection, FAMILY)
        elapsed_s = time.monotonic() - began
        return _figures(
            hands,
            report,
            {
                "ok": report.ok and drained == "" and report.coverage.compared and report.waiting == 0,
                "elapsed_s": round(elapsed_s, 1),
                "storm_s": round(stormed_s, 1),
                "drain_s": round(drain_s, 1),
                "drain_error": drained,
                "seed": seed,
                "faults": dict(struck),
                "recovery": clock.summary(),
                "unrecovered": clock.unrecovered,
                "foreign_lines": traffic.lines,
                "poison": dict(sorted(traffic.poisoned.items())),
                "poison_refused": dict(sorted(traffic.refused.items())),
            },
        )


def _figures(hands: Crew, report: AuditReport, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "storm: faults on a running service, then an audit",
        "rate": report.rows["rows_in"] / measured["elapsed_s"],
        "unit": "examples/s",
        "rows": report.rows["rows_in"],
        "peers": [],
        "records": report.raw_records,
        "producer_runs": hands.runs,
        **measured,
        "ends": dict(hands.ends),
        "last_words": hands.last_words,
        "audit": report.to_json(),
    }


def _storm(hands: Crew, clock: RecoveryClock, seed: int, storm_s: float, on_progress: OnProgress) -> Counter[str]:
    """Inject faults until the time is up; return {kind: faults}."""
    began = time.monotonic()
    struck: Counter[str] = Counter()
    for fault in plan(seed):
        time.sleep(min(fault.gap_s, max(0.0, began + storm_s - time.monotonic())))
        if time.monotonic() - began >= storm_s:
            return struck
        on_progress(time.monotonic() - began, _note(fault))
        clock.begin(fault.kind)
        struck[fault.kind] += 1
        hands.strike(fault)
        if not fault.overlaps:
            _wait(lambda: not clock.is_waiting, _RECOVERY_LIMIT_S)
    return struck


def _note(fault: InjectedFault) -> str:
    return f"{fault.kind} ({fault.lasts_s:.1f} s)" if "pause" in fault.kind else fault.kind


def _wait(done: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_INTERVAL_S)
    return True


def _drained(hands: Crew) -> str:
    """Wait until everything is refined and folded; return the error line, or an empty string."""
    deadline = time.monotonic() + _DRAIN_LIMIT_S
    while True:
        try:
            drain(hands.connection, FAMILY.name, max(1.0, deadline - time.monotonic()))
            return ""
        except DrainTimeoutError as error:
            return str(error)
        except FeedmillError as error:
            # The coverage service may still be starting.
            if time.monotonic() > deadline:
                return str(error)
            time.sleep(1.0)
