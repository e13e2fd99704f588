"""Run the reduction producer: make blocks of chunks in several processes, in order, and exactly `count` examples.

A block is a fixed number of chunks, so neither rows nor records depend on the number of workers. Workers route and
encode the rows or format them as JSON; this process sends or writes the results in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import polars as pl

from broker.clients import Connection
from producers.blocks import BlockResult, Lines, Records, send_results, write_results
from producers.pool import Pool
from producers.reduction.recipe import EXAMPLES_PER_TRACE, ReductionRun
from producers.sink import EncodedRecord, OnProgress, ProduceReport, RecordLayout, raw_layout
from schema.reduction import FAMILY

__all__ = ["ReductionRun", "encoded", "generate", "produce", "write_jsonl"]

# About 22,000 rows and ten megabytes: a few full records for each of several partitions.
_BLOCK_CHUNKS = 200

Payload = TypeVar("Payload")


@dataclass(frozen=True)
class WorkUnit:
    """Chunks first..first + chunks - 1 of a run; with `limit`, only the first `limit` rows of these chunks."""

    first: int
    chunks: int
    limit: int | None = None


@dataclass(frozen=True)
class ReductionFrames:
    """A job that makes a block's frame; worker processes call it."""

    run: ReductionRun

    def __call__(self, block: WorkUnit) -> BlockResult[WorkUnit, pl.DataFrame]:
        """Return the block's examples, identified, as a frame of the family's wire columns."""
        # Imported here because it loads compiled code, which a process that only describes a run does not need.
        from producers.reduction.chunks import make_chunks

        frame = make_chunks(self.run, block.first, block.chunks)
        if block.limit is not None:
            frame = frame.head(block.limit)
        return BlockResult(block, frame.height, frame)


def generate(run: ReductionRun) -> Iterator[pl.DataFrame]:
    """Make the run's examples in this process; yields non-empty identified frames of the family's wire columns."""
    for result in _results(replace(run, workers=1), ReductionFrames(run)):
        yield result.payload


def encoded(run: ReductionRun, layout: RecordLayout) -> Iterator[BlockResult[WorkUnit, list[EncodedRecord]]]:
    """Yield the run's examples as records for a raw topic of the given layout, block by block.

    Raises:
        ProducerError: a worker process failed.
    """
    return _results(run, Records(ReductionFrames(run), FAMILY.name, layout))


def produce(connection: Connection, run: ReductionRun, on_progress: OnProgress | None = None) -> ProduceReport:
    """Generate the run's examples and send them to `reduction.raw`; all are acknowledged when this returns.

    Raises:
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
        ProducerError: a worker process failed.
    """
    results = encoded(run, raw_layout(connection, FAMILY))
    return send_results(connection, FAMILY, run.run, run.seed, results, on_progress)


def write_jsonl(run: ReductionRun, path: Path, on_progress: OnProgress | None = None) -> ProduceReport:
    """Write the run's examples to `path` as JSON lines; after an error no partial file is left.

    Raises:
        UsageError: the file cannot be written.
        ProducerError: a worker process failed.
    """
    results = _results(run, Lines(ReductionFrames(run), FAMILY.name))
    return write_results(path, run.run, run.seed, results, on_progress)


def _results(
    run: ReductionRun, job: Callable[[WorkUnit], BlockResult[WorkUnit, Payload]]
) -> Iterator[BlockResult[WorkUnit, Payload]]:
    """Yield the run's results in order; the last block is made again with only the rows still wanted."""
    # Runs whose traces give more examples than usual use smaller blocks.
    chunks = max(1, _BLOCK_CHUNKS * EXAMPLES_PER_TRACE // max(run.examples_per_trace, EXAMPLES_PER_TRACE))
    blocks = (WorkUnit(first, chunks) for first in count(0, chunks))
    left = run.count
    if left == 0:
        return
    with Pool(job, run.workers) as pool:
        for result in pool.results(blocks):
            if result.rows > left:
                yield from pool.results([replace(result.block, limit=left)])
                return
            yield result
            left -= result.rows
            if left == 0:
                return
