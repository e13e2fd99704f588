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
from producers.sink import EncodedRecord, Layout, ProduceReport, Progress, RecordSender, encode_block, whole_file
from schema.family import Family
from schema.json_form import json_lines
from schema.registry import family_named

Block = TypeVar("Block")
Payload = TypeVar("Payload")


@dataclass(frozen=True)
class Parcel(Generic[Block, Payload]):
    """A block's rows in the form that its run asks for."""

    block: Block
    rows: int
    payload: Payload


@dataclass(frozen=True)
class Records(Generic[Block]):
    """The job that makes a block's records; `frames` makes its frame, of the family of that name."""

    frames: Callable[[Block], Parcel[Block, pl.DataFrame]]
    family: str
    layout: Layout

    def __call__(self, block: Block) -> Parcel[Block, list[EncodedRecord]]:
        """Return the block's examples as records for the raw topic."""
        parcel = self.frames(block)
        return Parcel(block, parcel.rows, encode_block(parcel.payload, family_named(self.family), self.layout))


@dataclass(frozen=True)
class Lines(Generic[Block]):
    """The job that makes a block's JSON lines; `frames` makes its frame, of the family of that name."""

    frames: Callable[[Block], Parcel[Block, pl.DataFrame]]
    family: str

    def __call__(self, block: Block) -> Parcel[Block, bytes]:
        """Return the block's examples as UTF-8 lines in the family's JSON form."""
        parcel = self.frames(block)
        return Parcel(block, parcel.rows, json_lines(parcel.payload, family_named(self.family)))


def send_parcels(
    connection: Connection,
    family: Family,
    run: str,
    seed: int,
    parcels: Iterable[Parcel[Block, list[EncodedRecord]]],
    on_progress: Progress | None = None,
) -> ProduceReport:
    """Send parcels of records to the family's raw topic; every one is acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached; DeliveryError: it did not take a record; whatever `parcels` raises.
    """
    started = time.monotonic()
    with RecordSender(connection, family, run) as sender:
        for parcel in parcels:
            for record in parcel.payload:
                sender.send_record(record)
            if on_progress:
                on_progress(sender.rows)
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, seed, run)


def write_parcels(
    path: Path, run: str, seed: int, parcels: Iterable[Parcel[Block, bytes]], on_progress: Progress | None = None
) -> ProduceReport:
    """Write parcels of JSON lines to `path`; the file is there whole, or not at all.

    Raises:
        UsageError: the file cannot be written; whatever `parcels` raises.
    """
    started = time.monotonic()
    rows = size = 0
    with whole_file(path) as stream:
        for parcel in parcels:
            size += stream.write(parcel.payload)
            rows += parcel.rows
            if on_progress:
                on_progress(rows)
    return ProduceReport(rows, 0, size, time.monotonic() - started, seed, run)
