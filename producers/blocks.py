"""What every systematic producer does with its blocks: frames, records or JSON lines of them, in order, to their place.

A run is cut into blocks, numbered units of work that any process can do; a producer says how to make a block's frame.
Rows are routed, encoded or written as JSON in the workers; this process sends or writes them in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import polars as pl

from broker.clients import Connection
from producers.sink import (
    EncodedRecord,
    OnProgress,
    ProduceReport,
    RecordLayout,
    RecordSender,
    encode_block,
    whole_file,
)
from schema.family import Family
from schema.json_form import json_lines
from schema.registry import family_named

Unit = TypeVar("Unit")
Payload = TypeVar("Payload")


@dataclass(frozen=True)
class BlockResult(Generic[Unit, Payload]):
    """A block's rows in the form that its run asks for."""

    block: Unit
    rows: int
    payload: Payload


@dataclass(frozen=True)
class Records(Generic[Unit]):
    """The job that makes a block's records; `frames` makes its frame, of the family of that name."""

    frames: Callable[[Unit], BlockResult[Unit, pl.DataFrame]]
    family: str
    layout: RecordLayout

    def __call__(self, block: Unit) -> BlockResult[Unit, list[EncodedRecord]]:
        """Return the block's examples as records for the raw topic."""
        result = self.frames(block)
        return BlockResult(block, result.rows, encode_block(result.payload, family_named(self.family), self.layout))


@dataclass(frozen=True)
class Lines(Generic[Unit]):
    """The job that makes a block's JSON lines; `frames` makes its frame, of the family of that name."""

    frames: Callable[[Unit], BlockResult[Unit, pl.DataFrame]]
    family: str

    def __call__(self, block: Unit) -> BlockResult[Unit, bytes]:
        """Return the block's examples as UTF-8 lines in the family's JSON form."""
        result = self.frames(block)
        return BlockResult(block, result.rows, json_lines(result.payload, family_named(self.family)))


def send_results(
    connection: Connection,
    family: Family,
    run: str,
    seed: int,
    results: Iterable[BlockResult[Unit, list[EncodedRecord]]],
    on_progress: OnProgress | None = None,
) -> ProduceReport:
    """Send results of records to the family's raw topic; every one is acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached; DeliveryError: it did not take a record; whatever `results` raises.
    """
    started = time.monotonic()
    with RecordSender(connection, family, run) as sender:
        for result in results:
            for record in result.payload:
                sender.send_record(record)
            if on_progress:
                on_progress(sender.rows)
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, seed, run)


def write_results(
    path: Path, run: str, seed: int, results: Iterable[BlockResult[Unit, bytes]], on_progress: OnProgress | None = None
) -> ProduceReport:
    """Write results of JSON lines to `path`; the file is there whole, or not at all.

    Raises:
        UsageError: the file cannot be written; whatever `results` raises.
    """
    started = time.monotonic()
    rows = size = 0
    with whole_file(path) as stream:
        for result in results:
            size += stream.write(result.payload)
            rows += result.rows
            if on_progress:
                on_progress(rows)
    return ProduceReport(rows, 0, size, time.monotonic() - started, seed, run)
