"""Ledger entries for tests: drawn at random, written as a refine worker writes them, and folded in plain Python."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from broker.clients import Connection
from broker.topics import ensure_topics, topic_name, undecided
from schema import ledger
from schema.family import cell_label
from schema.record import LEDGER, Envelope, encode
from schema.registry import FAMILIES

FAMILY = FAMILIES["reduction"]
CELLS = [cell_label(cell) for cell in FAMILY.cells()]
START = datetime(2031, 5, 4, 12, 30, tzinfo=UTC)


def entry(offset: int = 0, **columns: Any) -> dict[str, Any]:
    """One ledger entry without rows, except for the given `columns`."""
    names = ("rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost")
    counts = dict.fromkeys(names, 0)
    source = {"source_partition": 0, "source_offset": offset, "source_time": START, "run": "r", "chunk": 0}
    return {**source, **counts, "reasons": [], "coverage": [], **columns}


def random_entry(rng: random.Random, offset: int = 0) -> dict[str, Any]:
    clean, rejected, rerouted = rng.randrange(2000), rng.randrange(50), rng.randrange(3)
    bins = [("cell", rng.choice(CELLS)) for _ in range(rng.randrange(4))]
    bins += [(axis.name, rng.choice(axis.bins)) for axis in FAMILY.axes if rng.random() < 0.7]
    return entry(
        offset,
        source_time=START + timedelta(seconds=rng.randrange(7200)),
        rows_in=clean + rejected + rerouted,
        rows_clean=clean,
        rows_rejected=rejected,
        rows_rerouted=rerouted,
        rows_augmented=rng.randrange(2),
        reasons=[{"reason": f"rule_{n}", "rows": rng.randrange(1, 50)} for n in range(rng.randrange(3))],
        coverage=[{"axis": axis, "bin": bin_, "rows": rng.randrange(1, 2000)} for axis, bin_ in set(bins)],
    )


def frame(entries: Iterable[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(list(entries), schema=ledger.COLUMNS)


def folded(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The expected report of `entries`, folded in plain Python."""
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    bins: Counter[tuple[str, str]] = Counter()
    minutes: Counter[datetime] = Counter()
    for one in entries:
        totals["entries"] += 1
        for name in ("rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost"):
            totals[name] += one[name]
        for item in one["reasons"]:
            reasons[item["reason"]] += item["rows"]
        for item in one["coverage"]:
            bins[item["axis"], item["bin"]] += item["rows"]
        minutes[one["source_time"].replace(second=0, microsecond=0)] += one["rows_in"]
    return {"totals": dict(totals), "reasons": dict(reasons), "bins": dict(bins), "minutes": dict(minutes)}


def as_folded(report: dict[str, Any]) -> dict[str, Any]:
    """A report in the form of `folded`, without its minutes."""
    names = ("entries", "rows_in", "rows_clean", "rows_rejected", "rows_rerouted", "rows_augmented", "rows_lost")
    bins = {(axis, bin_): rows for axis, counts in report["axes"].items() for bin_, rows in counts.items() if rows}
    bins |= {("cell", label): rows for label, rows in report["cells"].items()}
    return {"totals": {n: report[n] for n in names}, "reasons": report["rejected_by_reason"], "bins": bins}


def without_minutes(fold: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fold.items() if name != "minutes"}


class LedgerWriter:
    """Writes ledger records in transactions, as a refine worker does; each ends in a marker that takes an offset."""

    def __init__(self, connection: Connection) -> None:
        ensure_topics(connection, [FAMILY.name])
        self.connection = connection
        self.topic = topic_name(connection.settings, FAMILY.name, LEDGER)
        self.producer = connection.producer(transactional_id=f"test-{uuid.uuid4().hex}")
        self.producer.init_transactions()

    def write(self, entries: Iterable[dict[str, Any]], partition: int = 0, *, abort: bool = False) -> None:
        """One transaction with one record of `entries`."""
        rows = frame(entries)
        envelope = Envelope(FAMILY.name, LEDGER, ledger.VERSION, run="r", chunk=0, part=0, rows=rows.height)
        self.send(encode(rows), envelope.headers(), partition, abort=abort)

    def send(self, value: bytes, headers: list[tuple[str, bytes]], partition: int = 0, *, abort: bool = False) -> None:
        """One transaction with one record of any bytes."""
        self.producer.begin_transaction()
        self.producer.send(self.topic, value, headers=headers, partition=partition).get(timeout=30)
        if abort:
            self.producer.abort_transaction()
        else:
            self.producer.commit_transaction()
        # The producer's commit returns before the marker is written, and readers wait for the marker.
        deadline = time.monotonic() + 30
        while undecided(self.connection, self.topic):
            assert time.monotonic() < deadline

    def write_last(self, entries: Iterable[dict[str, Any]]) -> None:
        """One transaction, and no more."""
        self.write(entries)
        self.close()

    def close(self) -> None:
        self.producer.close()
