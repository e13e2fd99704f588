"""`feedmill bench feed`: from stored reductions to padded int64 tensors on one core, beside what others would use.

Every contender gives the same tensors of the same rows in batches of the same size, in a process of its own that is
pinned to one core; the broker, where this starts it, has the others. `contenders.py` lists them, `measuring.py` is what
such a process does, `tensors.py` says what they give and how it is compared. The feed reads a clean topic that this
fills with what the producer generates, in records as the refine stage writes them.

A contender's rate is that of its median pass, and a pass counts from asking for the first batch to the end of the last.
The first pass is not timed: it is added up and compared with the rows themselves, and a contender that gave anything
else is an error rather than a figure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from bench.feed.contenders import COLUMNS, FEED, PEERS, TOPIC_ORDER, Contender
from bench.feed.tensors import Tally, tally_of_rows
from bench.ground import ground, on_cores
from broker.clients import Connection
from broker.topics import topic_name
from producers.reduction.recipe import ReductionRun
from producers.reduction.run import generate
from producers.sink import Layout, encode_block
from schema.errors import FeedmillError
from schema.record import CLEAN, Envelope
from schema.reduction import FAMILY

_ROWS = 900_000
_SEED = 3
# Of generated rows about one in ten is a duplicate, which refine would reject.
_GENERATED_PER_ROW = 1.25
_BATCH_SIZE = 256
_PASSES = 3
_PARTITIONS = 4
_LIMIT_S = 1800.0


class BenchmarkError(FeedmillError):
    """A contender could not be measured, or gave other tensors than the rows it was given stand for."""


def run(rows: int = _ROWS) -> dict[str, Any]:
    """Measure the feed on `rows` distinct reductions, and each peer on as many of them as it can take in some seconds.

    Keys: those of every benchmark, for the feed shuffled and bucketed, as one trains; `topic_order`, the same for the
    feed in the order of the topic, which is the peers'; in each peer `ratio`, how many times its rate the feed's is;
    and `peers_missing`, the distributions that are not installed.

    Raises:
        BenchmarkError: a contender failed or gave wrong tensors.
    """
    missing = sorted({name for peer in PEERS for name in peer.needs if _version(name) is None})
    peers = [peer for peer in PEERS if not set(peer.needs) & set(missing)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with ExitStack() as stack:
        with on_cores(set(cores[:-1]) or None):
            connection = stack.enter_context(ground(FAMILY.name, _PARTITIONS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="feedmill-bench-rows-")))
        frame = _distinct_rows(rows)
        _fill(connection, frame)
        with on_cores(set(cores[-1:]) or None):
            feed, topic_order, *others = (
                _measured(contender, connection, frame, folder) for contender in (FEED, TOPIC_ORDER, *peers)
            )
    return {
        **feed,
        "batch_size": _BATCH_SIZE,
        "peers": [{**other, "ratio": feed["rate"] / other["rate"]} for other in others],
        "peers_missing": missing,
        "topic_order": topic_order,
    }


def _distinct_rows(rows: int) -> pl.DataFrame:
    """Return generated rows of distinct terms, in the order of their generation, with the columns of a record."""
    run = ReductionRun(count=int(rows * _GENERATED_PER_ROW) + 1000, seed=_SEED)
    return pl.concat(generate(run)).unique("example_id", maintain_order=True).head(rows).select(list(FAMILY.wire))


def _fill(connection: Connection, frame: pl.DataFrame) -> None:
    settings = connection.settings
    layout = Layout(_PARTITIONS, settings.rows_per_record, settings.record_max_bytes)
    clean = topic_name(settings, FAMILY.name, CLEAN)
    producer = connection.producer()
    for record in encode_block(frame, FAMILY, layout):
        envelope = Envelope(
            FAMILY.name, CLEAN, FAMILY.version, "bench", record.chunk, f"{record.partition}.{record.part}", record.rows
        )
        producer.send(clean, record.data, partition=record.partition, headers=envelope.headers())
    producer.flush()
    producer.close()


def _measured(contender: Contender, connection: Connection, frame: pl.DataFrame, folder: Path) -> dict[str, Any]:
    rows = frame.head(contender.rows_at_most or frame.height).select(COLUMNS)
    stored = folder / f"rows-{rows.height}.parquet"
    if not stored.exists():
        rows.write_parquet(stored)
    done = subprocess.run(
        [sys.executable, "-m", "bench.feed.measuring", contender.key, str(stored), str(_BATCH_SIZE), str(_PASSES)],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        # Nothing here is on a hub; without this the libraries look whether it is.
        env={**connection.settings.environment(connection.servers), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BenchmarkError(f"{contender.name} could not be measured ({last}): see that `make bench-install` is done")
    told = json.loads(done.stdout.splitlines()[-1])
    tally, wanted = Tally(*told.pop("tally")), tally_of_rows(rows)
    if tally != wanted:
        raise BenchmarkError(f"{contender.name} gave {tally}, and its rows are {wanted}: report it")
    versions = " ".join(found for name in contender.needs if (found := _version(name)))
    return {"name": f"{contender.name} {versions}".strip(), "unit": "examples/s", **told}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
