"""Send the rejected rows and dead letters of one reason to raw again.

Nothing is sent twice. A row is not sent if it is in clean. A dead letter is not sent if an earlier redrive sent it
(`producers.redrive.letters`); if its bytes were rejected again, the new dead letter is sent.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from broker.clients import Connection
from broker.topics import topic_name
from producers.redrive.letters import FoundLetter, send_letters, sendable_letters
from producers.redrive.stage_records import OnProgress, stage_records
from producers.sink import RecordSender, encode_block, raw_layout
from schema.dead_letter import is_dead_letter, reason_of, rejected_rows
from schema.decoding import decode_record, is_foreign
from schema.errors import ProducerError
from schema.family import Family, identify
from schema.record import CLEAN, REJECTED


@dataclass(frozen=True)
class RedriveReport:
    """The counts of a redrive.

    Attributes:
        rows_found: distinct examples that were rejected for the reason alone.
        rows_in_clean: those that are in clean by now, and were not sent.
        rows_sent: those that were sent to raw.
        letters_found: dead letters of the reason, of all rounds.
        letters_sent: those that were sent to raw.
        letters_left_out: letters not sent, by cause: `sent_before`, `no_bytes` or `over_raw_record_max_bytes`. Letters
            beyond the limit are not in it.
    """

    family: str
    reason: str
    run: str
    rows_found: int
    rows_in_clean: int
    rows_sent: int
    letters_found: int = 0
    letters_sent: int = 0
    letters_left_out: dict[str, int] = field(default_factory=dict)


def redrive(
    connection: Connection,
    family: Family,
    reason: str,
    run: str = "",
    limit: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[RedriveReport, Counter[str]]:
    """Send to raw the rows and dead letters that were rejected for `reason` alone and are committed now.

    Each example is sent once, as it was last rejected, with its `augmented_from`. Each dead letter is sent once, with
    its bytes and key; `limit` counts it as one, however many lines it holds.

    Returns:
        The report, and how many rows were rejected for each other reason, those in dead letters included.

    Raises:
        BrokerError: the broker cannot be read; DeliveryError: it did not take a record.
        ProducerError: a record cannot be decoded, or retention took it meanwhile.
    """
    rejected = _rejected(connection, family, reason, on_progress)
    rows, rows_found = rejected.rows, rejected.rows.height
    if rows_found:
        rows = _not_in_clean(connection, family, rows, on_progress)
    letters, left_out = sendable_letters(connection, family, rejected.letters, on_progress)
    run = run or f"redrive-{reason}-{uuid.uuid4().hex[:8]}"
    sent = rows.head(rows.height if limit is None else limit)
    _send(connection, family, run, sent)
    letters_sent = send_letters(
        connection, family, run, letters if limit is None else letters[: max(limit - sent.height, 0)]
    )
    report = RedriveReport(
        family=family.name,
        reason=reason,
        run=run,
        rows_found=rows_found,
        rows_in_clean=rows_found - rows.height,
        rows_sent=sent.height,
        letters_found=len(rejected.letters),
        letters_sent=letters_sent,
        letters_left_out=dict(left_out),
    )
    return report, rejected.others


@dataclass(frozen=True)
class _Rejected:
    """The rows of one reason, each example once, and its dead letters; `others` counts rows by other reasons."""

    rows: pl.DataFrame
    letters: Sequence[FoundLetter]
    others: Counter[str]


def _rejected(connection: Connection, family: Family, reason: str, on_progress: OnProgress | None) -> _Rejected:
    """Return the rows and dead letters of this one reason, in the order in which they were rejected."""
    columns = {**family.wire, "reasons": pl.List(pl.String())}
    frames = [pl.DataFrame(schema=family.wire)]
    letters: list[FoundLetter] = []
    others: Counter[str] = Counter()
    for record in stage_records(connection, family, REJECTED, on_progress):
        if is_dead_letter(record.headers):
            if reason_of(record.headers) == reason:
                letters.append(FoundLetter.of(record))
            else:
                others[reason_of(record.headers)] += rejected_rows(record.value or b"", record.headers)
            continue
        frame = _decoded(connection, family, record, REJECTED, columns)
        if frame is None:
            continue
        is_wanted = (pl.col("reasons").list.len() == 1) & (pl.col("reasons").list.first() == reason)
        frames.append(frame.filter(is_wanted).drop("reasons"))
        counted = frame.filter(~is_wanted)["reasons"].explode(empty_as_null=False).value_counts()
        others.update(dict(counted.iter_rows()))
    rows = pl.concat(frames).unique("example_id", keep="last", maintain_order=True)
    return _Rejected(rows, letters, others)


def _not_in_clean(
    connection: Connection, family: Family, rows: pl.DataFrame, on_progress: OnProgress | None
) -> pl.DataFrame:
    columns = {"example_id": family.wire["example_id"]}
    for record in stage_records(connection, family, CLEAN, on_progress):
        clean = _decoded(connection, family, record, CLEAN, columns)
        if clean is None:
            continue
        rows = rows.join(clean, on="example_id", how="anti", maintain_order="left")
    return rows


def _decoded(
    connection: Connection, family: Family, record: Any, stage: str, columns: dict[str, pl.DataType]
) -> pl.DataFrame | None:
    """Return the rows of a record; None for a record that another program wrote."""
    topic = topic_name(connection.settings, family.name, stage)
    if is_foreign(record, topic, (family.name, stage, family.version)):
        return None
    return decode_record(record, topic, (family.name, stage, family.version), columns, ProducerError)


def _send(connection: Connection, family: Family, run: str, rows: pl.DataFrame) -> None:
    layout = raw_layout(connection, family)
    size = layout.partitions * layout.rows_per_record
    with RecordSender(connection, family, run) as sender:
        for block, begin in enumerate(range(0, rows.height, size)):
            frame = identify(rows.slice(begin, size), family)
            for record in encode_block(frame, family, layout, block):
                # The rows keep the chunk numbers of their old runs, which mean nothing in this run.
                sender.send_record(replace(record, chunk=block))
