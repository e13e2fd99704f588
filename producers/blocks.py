"""Blocks of a run: turned into records or JSON lines by worker processes, then sent or written in order.

A block is a numbered unit of work that any process can do. Each producer supplies the function that makes a block's
frame. Workers route and encode the rows or format them as JSON; this process sends or writes the results in order.
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
    """A block's rows as a frame, as records or as JSON lines."""

    block: Unit
    rows: int
    payload: Payload


@dataclass(frozen=True)
class Records(Generic[Unit]):
    """A job that makes a block's records: `frames` makes the block's frame; `family` is the family's name."""

    frames: Callable[[Unit], BlockResult[Unit, pl.DataFrame]]
    family: str
    layout: RecordLayout

    def __call__(self, block: Unit) -> BlockResult[Unit, list[EncodedRecord]]:
        """Return the block's examples as records for the raw topic."""
        result = self.frames(block)
        return BlockResult(block, result.rows, encode_block(result.payload, family_named(self.family), self.layout))


@dataclass(frozen=True)
class Lines(Generic[Unit]):
    """A job that makes a block's JSON lines: `frames` makes the block's frame; `family` is the family's name."""

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
    """Send the records in `results` to the family's raw topic; all are acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        Exception: any error of the iterator `results`.
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
    """Write the JSON lines in `results` to `path`; after an error no partial file is left.

    Raises:
        UsageError: the file cannot be written.
        Exception: any error of the iterator `results`.
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
