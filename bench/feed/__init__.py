"""`feedmill bench feed`: the rate from stored reductions to padded int64 tensors on one core, beside its peers.

All contenders give the same tensors of the same rows in batches of the same size (`contenders`, `tensors`). Each is a
process of its own, pinned to one core, with one thread per library; Kafka has the other cores. The steps of a run:

1. Generate distinct rows, write them to a clean topic in records as the refine stage writes them, and to Parquet.
2. Start every contender. Each stores the rows in its own form and makes one untimed pass. The sums over the tensors of
   that pass must equal those of the rows; other sums are an error.
3. Time one pass of each contender in turn, `_REPETITIONS` times over.

`rate` belongs to the median `elapsed_s`, and `rows_per_cpu_s` to the median `cpu_s`. On a busy machine, compare the
second, because waiting for a core costs no CPU time.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from bench.environment import fresh_environment, on_cores
from bench.feed.contenders import FEED, PEERS, TOPIC_ORDER, Contender
from bench.feed.process import BenchmarkError, Measured
from bench.feed.tensors import COLUMNS, tally_of_rows
from broker.clients import Connection
from broker.topics import topic_name
from producers.reduction.run import ReductionRun
from producers.run import generate
from producers.sink import RecordLayout, encode_block
from schema.record import CLEAN, Envelope
from schema.reduction import FAMILY

__all__ = ["BenchmarkError", "measure", "run"]

# With this many rows, a pass of the slowest peers takes about 20 s.
_ROWS = 200_000
_SEED = 3
# About one generated row in ten is a duplicate, which refining would reject.
_GENERATED_PER_ROW = 1.25
_BATCH_SIZE = 256
_REPETITIONS = 3
_PARTITIONS = 4


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Measure the feed and every peer on the same `rows` distinct reductions.

    The result has the keys of every benchmark, for the feed shuffled and bucketed, and `order`, `cpu_s`,
    `rows_per_cpu_s`, `tokens_per_s` and `padding_share`. `topic_order` is the same for the feed in the topic's order.
    Each peer also has `ratio` and `cpu_ratio`: the rate of the feed in the same order over the peer's, by time and by
    CPU time. `peers_missing` lists distributions that are not installed.

    Raises:
        BenchmarkError: a contender failed or gave wrong tensors.
    """
    missing = sorted({name for peer in PEERS for name in peer.needs if _version(name) is None})
    present = [peer for peer in PEERS if not set(peer.needs) & set(missing)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with ExitStack() as stack:
        with on_cores(set(cores[:-1]) or None):
            connection = stack.enter_context(fresh_environment(FAMILY.name, _PARTITIONS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedmill-bench-rows-")))
        frame = _distinct_rows(rows)
        _fill(connection, frame)
        with on_cores(set(cores[-1:]) or None):
            feed, topic_order, *others = measure((FEED, TOPIC_ORDER, *present), connection, frame, folder)
    same_order = {feed["order"]: feed, topic_order["order"]: topic_order}
    for other in others:
        own = same_order[other["order"]]
        other["ratio"] = own["rate"] / other["rate"]
        other["cpu_ratio"] = own["rows_per_cpu_s"] / other["rows_per_cpu_s"]
    return {
        **feed,
        "batch_size": _BATCH_SIZE,
        "repetitions": _REPETITIONS,
        "peers": others,
        "peers_missing": missing,
        "topic_order": topic_order,
    }


def measure(
    contenders: tuple[Contender, ...],
    connection: Connection,
    frame: pl.DataFrame,
    folder: Path,
    repetitions: int = _REPETITIONS,
) -> list[dict[str, Any]]:
    """Return the figures of each contender over the rows of `frame`, which the clean topic of `connection` holds.

    Args:
        contenders: the contenders to measure; their passes take turns.
        connection: the broker, with the namespace of the topics.
        frame: the rows, with `COLUMNS`.
        folder: where the contenders may store files.
        repetitions: timed passes of each.

    Raises:
        BenchmarkError: a contender failed or gave wrong tensors.
    """
    rows = frame.select(COLUMNS)
    stored = folder / "rows.parquet"
    rows.write_parquet(stored)
    wanted = tally_of_rows(rows)
    environment = connection.settings.environment(connection.servers)
    with ExitStack() as stack:
        started = [
            stack.enter_context(Measured(contender, stored, _BATCH_SIZE, environment, wanted))
            for contender in contenders
        ]
        timed = [[process.one_pass() for process in started] for _ in range(repetitions)]
    return [
        _figures(process, [passes[number] for passes in timed], rows.height, wanted.tokens)
        for number, process in enumerate(started)
    ]


def _figures(process: Measured, passes: list[dict[str, float]], rows: int, tokens: int) -> dict[str, Any]:
    elapsed_s, cpu_s = (median(each[name] for each in passes) for name in ("elapsed_s", "cpu_s"))
    contender = process.contender
    versions = " ".join(number for name in contender.needs if (number := _version(name)))
    return {
        "name": f"{contender.name} {versions}".strip(),
        "rate": rows / elapsed_s,
        "unit": "examples/s",
        "elapsed_s": elapsed_s,
        "rows": rows,
        "order": contender.order,
        "cpu_s": cpu_s,
        "rows_per_cpu_s": rows / cpu_s,
        "tokens_per_s": tokens / elapsed_s,
        "padding_share": process.padding_share,
    }


def _distinct_rows(rows: int) -> pl.DataFrame:
    """Return generated rows of distinct terms, in the order of their generation, with the columns of a record."""
    run = ReductionRun(count=int(rows * _GENERATED_PER_ROW) + 1000, seed=_SEED)
    return pl.concat(generate(run)).unique("example_id", maintain_order=True).head(rows).select(list(FAMILY.wire))


def _fill(connection: Connection, frame: pl.DataFrame) -> None:
    settings = connection.settings
    layout = RecordLayout(_PARTITIONS, settings.rows_per_record, settings.record_max_bytes)
    clean = topic_name(settings, FAMILY.name, CLEAN)
    producer = connection.producer()
    for record in encode_block(frame, FAMILY, layout):
        envelope = Envelope(
            FAMILY.name, CLEAN, FAMILY.version, "bench", record.chunk, f"{record.partition}.{record.part}", record.rows
        )
        producer.send(clean, record.data, partition=record.partition, headers=envelope.headers())
    producer.flush()
    producer.close()


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
