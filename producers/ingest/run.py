"""`ingest`: send a file or a pipe of foreign examples to the raw topic, row by row.

A background thread reads and this thread sends: a record is sent when it is full or half a second old. The first SIGINT
or SIGTERM ends the reading. All rows read until then are sent and acknowledged, and `StoppedError` gives their number.
A second signal ends the process at once.
"""

from __future__ import annotations

import io
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from broker.clients import Connection
from producers.ingest.background import BackgroundReader
from producers.ingest.batches import Batcher, LineBatch, Row
from producers.ingest.kinds import Kind, kind_of
from producers.ingest.signals import FirstSignal, first_signal
from producers.ingest.streams import DAMAGED, Arriving, decompressed, require_seekable
from producers.ingest.tables import read_tables
from producers.ingest.text import read_text
from producers.sink import OnProgress, ProduceReport, RecordSender, raw_layout
from schema.errors import StoppedError, UsageError
from schema.family import Family
from schema.record import JSON
from schema.source_lines import source_headers

STANDARD_INPUT = "-"
_STDIN_NAME = "standard input"
# The longest wait for rows before the clock and the stop signal are checked again.
_LOOK_INTERVAL_S = 0.1


def ingest(
    connection: Connection, family: Family, file: str, run: str = "", on_progress: OnProgress | None = None
) -> ProduceReport:
    """Send each row of `file` to the family's raw topic, like `ingest_stream`; `-` is standard input.

    Raises:
        UsageError: the file cannot be read, is damaged, or has a row that is too long.
        StoppedError: a signal ended the reading.
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
    """
    with closing(_opened(file)) as stream:
        name = _STDIN_NAME if file == STANDARD_INPUT else file
        return ingest_stream(connection, family, stream, run, on_progress, name=name)


def _opened(file: str) -> BinaryIO:
    """Return the open file, unbuffered so that a read from a pipe returns the available bytes."""
    if file != STANDARD_INPUT:
        try:
            return cast(BinaryIO, Path(file).open("rb", buffering=0))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{file} cannot be read ({reason}): name a file of examples, or - for a pipe") from None
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("standard input is closed, so `-` cannot be read: pipe JSON lines in, or name a file")
    try:
        return cast(BinaryIO, open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    except (OSError, ValueError):  # standard input has no file descriptor, e.g. in tests
        return sys.stdin.buffer


def ingest_stream(
    connection: Connection,
    family: Family,
    stream: BinaryIO,
    run: str = "",
    on_progress: OnProgress | None = None,
    *,
    name: str = "stream",
) -> ProduceReport:
    """Send each row of `stream` to the family's raw topic; all are acknowledged when this returns.

    Reads JSON lines, arrays and objects, Parquet and Arrow. JSON and Arrow streams may be compressed with gzip, bzip2,
    xz, zstd or lz4. A record holds whole rows, at most `settings.rows_per_record` rows and `settings.record_max_bytes`
    bytes; a longer row, up to `settings.raw_record_max_bytes`, has its own record. A record's headers name the file and
    the lines of its rows.

    Raises:
        UsageError: the file cannot be read, is damaged, or has a row that is too long; the rows before it were sent.
        StoppedError: a signal ended the reading; all rows read before it were sent.
        BrokerError: the broker cannot be reached.
        DeliveryError: the broker did not accept a record.
    """
    started = time.monotonic()
    run = run or f"ingest-{secrets.token_hex(4)}"
    layout = raw_layout(connection, family)
    stop = threading.Event()
    rows = _rows(Arriving(stream, stop), stream, family, name, connection.settings.raw_record_max_bytes)
    batcher = Batcher(layout.rows_per_record, layout.record_max_bytes)
    with (
        RecordSender(connection, family, run) as sender,
        first_signal(stop.set) as signal,
        BackgroundReader(rows, stop) as reader,
    ):
        send = partial(_send, sender, run, name, layout.partitions)
        try:
            for batch in _batches(reader, batcher):
                send(batch)
                if on_progress:
                    on_progress(sender.rows)
        except UsageError as error:
            for batch in batcher.rest():
                send(batch)
            # The message gives the number of rows sent, so they must be acknowledged first.
            sender.flush()
            raise UsageError(f"{error} ({sender.rows:,} rows were sent)" if sender.rows else str(error)) from None
        sender.flush()
    if signal.name:
        raise _stopped(signal, name, sender.rows)
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, None, run)


def _batches(reader: BackgroundReader, batcher: Batcher) -> Iterator[LineBatch]:
    """Yield batches as they fill or fall due, until `reader` ends."""
    while True:
        due_in_s = batcher.due_in_s()
        if due_in_s is not None and due_in_s <= 0:
            yield from batcher.rest()
            due_in_s = None
        rows = reader.take(_LOOK_INTERVAL_S if due_in_s is None else min(due_in_s, _LOOK_INTERVAL_S))
        if rows is None:
            yield from batcher.rest()
            return
        yield from batcher.add(rows)


def _send(sender: RecordSender, run: str, name: str, partitions: int, batch: LineBatch) -> None:
    headers = {
        "content-type": JSON,
        "feedmill-run": run,
        "feedmill-chunk": str(sender.records),
        "feedmill-rows": str(batch.rows),
    }
    encoded = [(key, value.encode()) for key, value in headers.items()]
    sender.send(batch.value, encoded + source_headers(name, batch.lines), sender.records % partitions, batch.rows)


def _stopped(signal: FirstSignal, name: str, rows: int) -> StoppedError:
    return StoppedError(f"stopped by {signal.name}: the {rows:,} rows read of {name} were sent", signal.exit_status)


def _rows(arriving: Arriving, source: BinaryIO, family: Family, name: str, limit_bytes: int) -> Iterator[list[Row]]:
    """Detect the kind of a file by its first bytes, then yield its rows.

    Raises:
        UsageError: the file cannot be read, or is damaged.
    """
    try:
        kind = kind_of(arriving.look(), name)
        if not kind.is_compressed:
            yield from _content(arriving, source, kind, family, name, limit_bytes)
            return
        inside = Arriving(decompressed(arriving, kind), threading.Event())
        within = kind_of(inside.look(), f"the content of {name}")
        if within.is_compressed or within.needs_seeking:
            raise UsageError(f"the content of {name} ({kind.value}) is itself {within.value}: decompress it first")
        yield from _content(inside, cast(BinaryIO, inside), within, family, name, limit_bytes)
    except DAMAGED as error:
        raise UsageError(
            f"the rest of {name} cannot be read ({error}): check that the file is complete, then ingest it again"
        ) from None


def _content(
    arriving: Arriving, source: BinaryIO, kind: Kind, family: Family, name: str, limit_bytes: int
) -> Iterator[list[Row]]:
    """Yield the rows of a file of the given kind.

    Raises:
        UsageError: the file cannot be read, has a row that is too long, or is cut off.
        ReadingStopped: the reading was stopped.
    """
    match kind:
        case Kind.EMPTY:
            return
        case Kind.JSON:
            try:
                yield from read_text(cast(BinaryIO, arriving), limit_bytes)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
        case Kind.ARROW_STREAM:
            yield from read_tables(io.BufferedReader(arriving), kind, family, name)
        case _:
            require_seekable(source, name, kind)
            source.seek(0)
            for rows in read_tables(source, kind, family, name):
                yield rows
                arriving.check()
