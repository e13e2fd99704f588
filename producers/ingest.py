"""Foreign examples into raw: JSON lines from a file or a pipe, as they are.

Nothing is judged here: each line goes to the raw topic, and the refine stage parses it, judges it and sends it on to
the partition it belongs in, so that every line is answered for in the ledger.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

from broker.clients import Connection
from producers.sink import ProduceReport, Progress, RecordSender, raw_layout
from schema.errors import UsageError
from schema.family import Family
from schema.record import JSON

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def ingest(
    connection: Connection, family: Family, file: str, run: str = "", on_progress: Progress | None = None
) -> int:
    """Send each line of the JSONL file `file`, or of standard input for `-`, as `ingest_stream`; return how many.

    Raises:
        UsageError: the file cannot be read, or as `ingest_stream`.
        BrokerError: the broker cannot be reached; DeliveryError: it did not take a record.
    """
    if file == "-":
        return ingest_stream(connection, family, sys.stdin.buffer, run, on_progress).rows
    with _opened(file) as stream:
        return ingest_stream(connection, family, stream, run, on_progress).rows


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): name a file of JSON lines") from None


def ingest_stream(
    connection: Connection, family: Family, stream: BinaryIO, run: str = "", on_progress: Progress | None = None
) -> ProduceReport:
    """Send each line of `stream` that is not blank to the family's raw topic; all are acknowledged when this returns.

    A record holds whole lines, `settings.rows_per_record` and `settings.record_max_bytes` at most; a longer line, up to
    `settings.raw_record_max_bytes`, travels alone.

    Raises:
        UsageError: a line is longer than that; the lines before it were sent.
        BrokerError: the broker cannot be reached; DeliveryError: it did not take a record.
    """
    started = time.monotonic()
    run = run or f"ingest-{secrets.token_hex(4)}"
    settings = connection.settings
    layout = raw_layout(connection, family)
    lines = read_lines(stream, settings.raw_record_max_bytes)
    with RecordSender(connection, family, run) as sender:
        try:
            for number, batch in enumerate(batches(lines, layout.rows_per_record, layout.record_max_bytes)):
                headers = {
                    "content-type": JSON,
                    "feedmill-run": run,
                    "feedmill-chunk": str(number),
                    "feedmill-rows": str(len(batch)),
                }
                sender.send(
                    b"\n".join(batch),
                    [(name, value.encode()) for name, value in headers.items()],
                    number % layout.partitions,
                    len(batch),
                )
                if on_progress:
                    on_progress(sender.rows)
        except UsageError:
            # What it says was sent has to be there.
            sender.flush()
            raise
    return ProduceReport(sender.rows, sender.records, sender.bytes, time.monotonic() - started, None, run)


def read_lines(stream: BinaryIO, limit_bytes: int) -> Iterator[bytes]:
    """Yield the lines of `stream` without their ends, blank ones skipped.

    Raises:
        UsageError: a line has over `limit_bytes` bytes.
    """
    for number in count(1):
        line = stream.readline(limit_bytes + 3)
        if not line:
            return
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        line = line.strip()
        if len(line) > limit_bytes:
            raise UsageError(
                f"line {number} has over {limit_bytes} bytes, and those before it were sent: shorten it, and ingest "
                "from it on"
            )
        if line:
            yield line


def batches(lines: Iterator[bytes], max_lines: int, max_bytes: int) -> Iterator[list[bytes]]:
    """Yield lists of lines in order: `max_lines` of them and, joined, `max_bytes` at most, or one longer line alone.

    A `UsageError` from `lines` passes on after the lines before it.
    """
    batch: list[bytes] = []
    size = 0
    try:
        for line in lines:
            if batch and (len(batch) == max_lines or size + len(line) > max_bytes):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line) + 1
    except UsageError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
