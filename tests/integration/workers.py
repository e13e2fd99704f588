"""Refine workers as child processes, and readers of the topics for tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from broker.clients import Connection
from broker.committed import has_records
from broker.topics import committed_positions, extents, topic_name, undecided
from schema import ledger
from schema.dead_letter import rejected_rows
from schema.family import Family
from schema.record import CLEAN, LEDGER, RAW, REJECTED, decode
from schema.reduction import FAMILY
from schema.settings import Settings
from streams.audit.run import audit
from streams.positions import position_group
from tests.topic_records import all_records

_LIMIT_S = 120.0


@dataclass(frozen=True)
class Read:
    """A record as read back from a topic."""

    partition: int
    offset: int
    value: bytes
    headers: Mapping[str, bytes]
    key: bytes | None = None


def spawn(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """Start `feedmill worker` on a lifeline; it ends with this process at the latest."""
    assert settings.bootstrap_servers is not None
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "feedmill.child_process", "worker"],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            env=settings.environment(settings.bootstrap_servers),
        )


@contextmanager
def worker(settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running worker, stopped in order at the end; its orderly end is part of the test."""
    already = log.stat().st_size if log.exists() else 0
    process = spawn(settings, log)
    try:
        # From its first line on a worker ends in order; before, it holds nothing.
        deadline = time.monotonic() + _LIMIT_S
        while b"refining" not in log.read_bytes()[already:]:
            assert time.monotonic() < deadline
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process
        assert process.poll() is None, f"the worker ended by itself: {log.read_text()}"
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a worker with `kill -9`, if it still runs."""
    process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()


def wait_until_refined(
    connection: Connection, process: subprocess.Popen[bytes] | None, log: Path, family: Family = FAMILY
) -> None:
    """Return once no record of raw is left beyond the committed positions."""
    topic = topic_name(connection.settings, family.name, RAW)
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        assert process is None or process.poll() is None, f"the worker ended: {log.read_text()}"
        positions = committed_positions(connection, position_group(connection.settings, family.name), topic)
        at = {
            partition: positions.get(partition, extent.begin)
            for partition, extent in extents(connection, topic).items()
        }
        if not undecided(connection, topic) and not any(has_records(connection, topic, at).values()):
            return
        time.sleep(0.1)
    raise AssertionError(f"not refined within {_LIMIT_S} s: {log.read_text()}")


def records(connection: Connection, stage: str, family: Family = FAMILY) -> list[Read]:
    """Every committed record of a stage, by partition and offset."""
    return [
        Read(read.partition, read.offset, read.value, dict(read.headers), read.key)
        for read in all_records(connection, family, stage)
    ]


def clean(connection: Connection, family: Family = FAMILY) -> pl.DataFrame:
    """All rows of clean, with their `partition`."""
    frames = [
        decode(record.value, family.wire, 10**6).with_columns(partition=pl.lit(record.partition))
        for record in records(connection, CLEAN, family)
    ]
    return pl.concat(frames) if frames else pl.DataFrame(schema={**family.wire, "partition": pl.Int32})


def rejected(connection: Connection, family: Family = FAMILY) -> tuple[pl.DataFrame, list[Read]]:
    """All rejected rows, and all dead letters."""
    columns = {**family.wire, "reasons": pl.List(pl.String())}
    rows = [pl.DataFrame(schema=columns)]
    letters = []
    for record in records(connection, REJECTED, family):
        if "__connect.errors.topic" in record.headers:
            letters.append(record)
        else:
            rows.append(decode(record.value, columns, 10**6))
    return pl.concat(rows), letters


def entries(connection: Connection, family: Family = FAMILY) -> pl.DataFrame:
    """All ledger entries."""
    frames = [decode(record.value, ledger.COLUMNS, 10**6) for record in records(connection, LEDGER, family)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=ledger.COLUMNS)


def check_accounts(connection: Connection, family: Family = FAMILY) -> Mapping[str, int]:
    """Check the contract's invariants on the topics, once everything is refined; return the ledger's sums.

    It runs Feedmill's own audit and compares it with counts made another way, so an error in either is noticed.
    """
    report = audit(connection, family)
    assert report.ok, report.first_fault
    assert (report.waiting, report.foreign_records) == (0, 0)
    assert report.raw_records == report.ledger_entries == len(records(connection, RAW, family))
    kept = clean(connection, family)
    rows, letters = rejected(connection, family)
    assert not kept["example_id"].is_duplicated().any()
    assert report.rows["rows_clean"] == kept.height
    in_letters = sum(rejected_rows(letter.value, list(letter.headers.items())) for letter in letters)
    assert report.rows["rows_rejected"] == rows.height + in_letters
    return report.rows
