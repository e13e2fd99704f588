"""Ledger entries for raw records that were never judged, because retention removed them or nobody can read them.

Takes a partition and offsets; returns the record to send in the transaction that moves the position past them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from aiokafka import TopicPartition

from schema import ledger
from schema.dead_letter import Refusal, letter_headers
from schema.family import Family
from schema.record import LEDGER, REJECTED, Envelope, encode
from streams.refine.outbound import OutRecord
from streams.refine.starting_position import Start


def loss_record(family: Family, raw: TopicPartition, start: Start) -> OutRecord:
    """Return the ledger record for the offsets before `start.position` that retention removed unrefined."""
    entry = {
        "source_offset": start.position - 1,
        "rows_in": start.lost,
        "rows_rejected": 0,
        "rows_lost": start.lost,
        "reasons": [{"reason": ledger.LOST_TO_RETENTION, "rows": start.lost}],
    }
    return _ledger_record(family, raw, start.topic_id, [entry], f"lost.{start.position}")


def skip_record(family: Family, raw: TopicPartition, topic_id: str, offsets: Sequence[int]) -> OutRecord:
    """Return the ledger record for unreadable raw records at `offsets`: each counts as one rejected row."""
    entries = [
        {
            "source_offset": offset,
            "rows_in": 1,
            "rows_rejected": 1,
            "rows_lost": 0,
            "reasons": [{"reason": ledger.SKIPPED, "rows": 1}],
        }
        for offset in offsets
    ]
    return _ledger_record(family, raw, topic_id, entries, f"skip.{offsets[0]}-{offsets[-1]}")


def skip_letter(raw: TopicPartition, offsets: Sequence[int], message: str) -> OutRecord:
    """Return the dead letter, without a value, for skipped raw records at `offsets`."""
    refusal = Refusal(raw.topic, raw.partition, offsets[0], ledger.SKIPPED, message, rows=len(offsets))
    return OutRecord(REJECTED, raw.partition, b"", letter_headers(refusal, ()))


def _ledger_record(
    family: Family, raw: TopicPartition, topic_id: str, entries: Sequence[dict[str, Any]], part: str
) -> OutRecord:
    common = {
        "source_partition": raw.partition,
        "source_topic_id": topic_id,
        "rows_clean": 0,
        "rows_rerouted": 0,
        "rows_augmented": 0,
        "coverage": [],
    }
    frame = pl.DataFrame([{**common, **entry} for entry in entries], schema=ledger.COLUMNS)
    envelope = Envelope(
        family=family.name,
        stage=LEDGER,
        version=ledger.VERSION,
        run="refine",
        chunk=0,
        part=f"{raw.partition}.{part}",
        rows=frame.height,
    )
    return OutRecord(LEDGER, raw.partition, encode(frame), envelope.headers())
