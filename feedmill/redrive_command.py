"""The command `feedmill redrive`: rejected rows back to raw, once what they were refused for may hold no longer.

Meant for what a share gate refused (`quota_excellent_share`: the share has room again once other rows have come) and
for `near_duplicate` after a change of the threshold. A row that breaks a rule is refused again.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import polars as pl
import typer

from feedmill.progress import progress
from schema.family import Family, identify
from schema.record import CLEAN, REJECTED
from schema.registry import family_named
from schema.settings import load_settings

if TYPE_CHECKING:
    from broker.clients import Connection
    from consumers.reading import Record

_DEAD_LETTER = "__connect.errors."
_REASONS_TOLD = 5

# Called with the offsets read so far, and of how many.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class RedriveReport:
    """What a redrive did.

    Attributes:
        rows_found: different examples that were rejected for the reason alone.
        rows_in_clean: those of them that stand in clean by now, and were left where they are.
        rows_sent: those that went to raw again.
    """

    family: str
    reason: str
    run: str
    rows_found: int
    rows_in_clean: int
    rows_sent: int


def redrive_command(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="e.g. scenario")],
    reason: Annotated[str, typer.Option(help="Rows rejected for this reason and no other.")],
    run: Annotated[str, typer.Option(help="Name of this run in the accounts; made if not given.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to send at most; the first rejected go first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Send rejected rows to raw again, to be judged anew: those of one reason that are not in clean by now."""
    from broker.clients import connect
    from broker.topics import ensure_topics

    declared = family_named(family)
    connection = connect(load_settings())
    ensure_topics(connection, [declared.name])
    began = time.monotonic()
    with progress(f"reading {declared.name}.{REJECTED}", 100, quiet=as_json) as advance:

        def show(done: int, total: int) -> None:
            advance(100 * done / max(total, 1), "% of the offsets")

        report, others = redrive(connection, declared, reason, run, limit, show)
    if as_json:
        print(json.dumps(asdict(report)))
        return
    elapsed_s = time.monotonic() - began
    where = f"{connection.settings.namespace}.{declared.name}.raw"
    print(f"{report.rows_sent:,} rows of run {report.run} -> {where} in {elapsed_s:.1f} s", file=sys.stderr)
    if report.rows_in_clean:
        print(f"{report.rows_in_clean:,} more stand in clean by now", file=sys.stderr)
    if not report.rows_found and others:
        told = ", ".join(f"{name} ({rows:,})" for name, rows in others.most_common(_REASONS_TOLD))
        print(f"no row was rejected for {reason} alone; there are rows for {told}", file=sys.stderr)


def redrive(
    connection: Connection,
    family: Family,
    reason: str,
    run: str = "",
    limit: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[RedriveReport, Counter[str]]:
    """Send to raw what was rejected for `reason` alone, as far as it is committed when this begins.

    Each example is sent once, as it was rejected last, with the `augmented_from` that it had.

    Returns:
        The report, and how many rows were rejected for each other reason.

    Raises:
        BrokerError: the broker cannot be read; DeliveryError: it did not take a record.
        ReplayError: a record cannot be decoded, or retention took it meanwhile.
    """
    rows, others = _rejected(connection, family, reason, on_progress)
    found = rows.height
    if found:
        rows = _not_in_clean(connection, family, rows, on_progress)
    run = run or f"redrive-{reason}-{uuid.uuid4().hex[:8]}"
    sent = rows.head(rows.height if limit is None else limit)
    _send(connection, family, run, sent)
    return RedriveReport(family.name, reason, run, found, found - rows.height, sent.height), others


def _rejected(
    connection: Connection, family: Family, reason: str, on_progress: OnProgress | None
) -> tuple[pl.DataFrame, Counter[str]]:
    """Return the rows of this one reason, each example once, in the order in which they were rejected."""
    columns = {**family.wire, "reasons": pl.List(pl.String())}
    frames = [pl.DataFrame(schema=family.wire)]
    others: Counter[str] = Counter()
    for record in _records(connection, family, REJECTED, on_progress):
        if any(name.startswith(_DEAD_LETTER) for name, _ in record.headers):
            continue
        frame = _decoded(connection, family, record, REJECTED, columns)
        is_wanted = (pl.col("reasons").list.len() == 1) & (pl.col("reasons").list.first() == reason)
        frames.append(frame.filter(is_wanted).drop("reasons"))
        counted = frame.filter(~is_wanted)["reasons"].explode(empty_as_null=False).value_counts()
        others.update(dict(counted.iter_rows()))
    return pl.concat(frames).unique("example_id", keep="last", maintain_order=True), others


def _not_in_clean(
    connection: Connection, family: Family, rows: pl.DataFrame, on_progress: OnProgress | None
) -> pl.DataFrame:
    columns = {"example_id": family.wire["example_id"]}
    for record in _records(connection, family, CLEAN, on_progress):
        clean = _decoded(connection, family, record, CLEAN, columns)
        rows = rows.join(clean, on="example_id", how="anti", maintain_order="left")
    return rows


def _records(connection: Connection, family: Family, stage: str, on_progress: OnProgress | None) -> Iterator[Record]:
    """Yield the records of a stage that are committed now, partition after partition."""
    from broker.topics import extents, topic_name
    from consumers.reading import Block, TopicReader
    from schema.errors import ReplayError

    topic = topic_name(connection.settings, family.name, stage)
    blocks = [Block(partition, held.begin, held.end) for partition, held in extents(connection, topic).items()]
    blocks = [block for block in blocks if block.end > block.begin]
    total = sum(block.end - block.begin for block in blocks)
    with TopicReader(connection, topic, ReplayError) as reader:
        for number, record in reader.records(blocks):
            yield record
            if on_progress:
                before = sum(block.end - block.begin for block in blocks[:number])
                on_progress(before + record.offset + 1 - blocks[number].begin, total)


def _decoded(
    connection: Connection, family: Family, record: Record, stage: str, columns: dict[str, pl.DataType]
) -> pl.DataFrame:
    from broker.topics import topic_name
    from consumers.decoding import decode_record
    from schema.errors import ReplayError

    topic = topic_name(connection.settings, family.name, stage)
    return decode_record(record, topic, (family.name, stage, family.version), columns, ReplayError)


def _send(connection: Connection, family: Family, run: str, rows: pl.DataFrame) -> None:
    from producers.sink import RecordSender, encode_block, raw_layout

    layout = raw_layout(connection, family)
    size = layout.partitions * layout.rows_per_record
    with RecordSender(connection, family, run) as sender:
        for block, begin in enumerate(range(0, rows.height, size)):
            frame = identify(rows.slice(begin, size), family)
            for record in encode_block(frame, family, layout, block):
                # The rows are of many runs' chunks, which say nothing of this one.
                sender.send_record(replace(record, chunk=block))
