"""Turn verdicts into the records of one transaction.

Rows of whole raw records share one clean record while they fit. So a thousand one-row JSON records do not become a
thousand one-row clean records. `feedmill-source` names the raw records of the rows: `topic/partition/offset`, or
`topic/partition/first-last`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from schema import ledger
from schema.dead_letter import Refusal, letter_headers
from schema.family import Family
from schema.record import CLEAN, LEDGER, RAW, REJECTED, Envelope, encode_parts, to_table
from schema.settings import Settings
from streams.refine.decode import DeadLetter, Intake, RawRecord
from streams.refine.judge import Verdicts
from streams.refine.sources import SOURCE_COLUMNS, sourced


@dataclass(frozen=True)
class OutRecord:
    """A record to send: the stage that names its topic, partition, bytes, headers, and an optional key."""

    stage: str
    partition: int
    value: bytes
    headers: list[tuple[str, bytes]]
    key: bytes | None = None


@dataclass(frozen=True)
class Group:
    """A group of raw records of one partition, and the rows and dead letters that were decoded from it."""

    family: Family
    records: Sequence[RawRecord]
    intake: Intake

    def envelope(self, stage: str, first: int, last: int, rows: int, part: str) -> Envelope:
        """Return the envelope of a record that carries rows of raw records `first`..`last` (indices, inclusive)."""
        begin, end = self.records[first], self.records[last]
        span = str(begin.offset) if first == last else f"{begin.offset}-{end.offset}"
        version = ledger.VERSION if stage == LEDGER else self.family.version
        return Envelope(
            family=self.family.name,
            stage=stage,
            version=version,
            run=self.intake.runs[first] or "foreign",
            chunk=self.intake.chunks[first] or 0,
            # Unique under run and chunk: a raw offset is refined once, and `part` differs between its output records.
            part=f"{begin.partition}.{begin.offset}.{part}",
            rows=rows,
            source=f"{begin.topic}/{begin.partition}/{span}",
        )


def outbound(
    group: Group, verdicts: Verdicts, entries: pl.DataFrame, augmented: pl.DataFrame, settings: Settings
) -> Iterator[OutRecord]:
    """Yield every record of the group's transaction.

    `augmented` holds the rows that augmentation adds (wire columns, `record` and `partition`). They go to their own
    partitions of raw, as the rerouted rows do.
    """
    home = group.records[0].partition
    wire = list(group.family.wire)
    clean = to_table(verdicts.clean.select(wire))
    for first, last, rows in _packed(verdicts.clean["record"].to_numpy(), settings.rows_per_record):
        packed = clean.slice(rows.start, rows.stop - rows.start)
        yield from _encoded(group, CLEAN, CLEAN, home, (first, last), packed, settings)
    if verdicts.rejected.height:
        known = verdicts.rejected.columns
        offsets = np.array([record.offset for record in group.records], dtype=np.int64)
        rejected = verdicts.rejected.with_columns(
            source_offset=pl.Series(offsets[verdicts.rejected["record"].to_numpy()]),
            **{name: pl.lit(None, dtype) for name, dtype in SOURCE_COLUMNS.items() if name not in known},
        )
        span = _span(rejected)
        yield from _encoded(group, REJECTED, REJECTED, home, span, to_table(rejected.drop("record")), settings)
    for letter in group.intake.dead:
        yield _dead_letter(letter, group.records[letter.record])
    for kind, added in (("rerouted", verdicts.rerouted), ("augmented", augmented)):
        for (partition,), piece in added.partition_by("partition", as_dict=True, maintain_order=True).items():
            table = to_table(piece.select(*wire, *sourced(piece)))
            yield from _encoded(group, kind, RAW, int(partition), _span(piece), table, settings)
    yield from _encoded(group, LEDGER, LEDGER, home, (0, len(group.records) - 1), to_table(entries), settings)


def _span(frame: pl.DataFrame) -> tuple[int, int]:
    records = frame["record"]
    return int(records[0]), int(records[-1])


def _packed(record: NDArray[np.uint32], max_rows: int) -> Iterator[tuple[int, int, slice]]:
    """Yield (first record, last record, rows): consecutive whole raw records while they fit into `max_rows`."""
    records, counts = np.unique(record, return_counts=True)
    begin, height, first = 0, 0, 0
    for index, count in enumerate(counts.tolist()):
        if height and height + count > max_rows:
            yield int(records[first]), int(records[index - 1]), slice(begin, begin + height)
            begin, height, first = begin + height, 0, index
        height += count
    if height:
        yield int(records[first]), int(records[-1]), slice(begin, begin + height)


def _encoded(
    group: Group, kind: str, stage: str, partition: int, span: tuple[int, int], table: pa.Table, settings: Settings
) -> Iterator[OutRecord]:
    parts = encode_parts(table, settings.rows_per_record, settings.record_max_bytes)
    for part, (rows, value) in enumerate(parts):
        # One transaction may send rows of one raw record to several raw partitions, both rerouted and augmented ones.
        envelope = group.envelope(stage, *span, rows=rows, part=f"{kind}.{partition}.{part}")
        yield OutRecord(stage, partition, value, envelope.headers())


def _dead_letter(letter: DeadLetter, record: RawRecord) -> OutRecord:
    """Return the original bytes under the record's key, with headers that give their source and the reason."""
    refusal = Refusal(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=letter.reason,
        message=letter.message,
        rows=letter.rows,
        lines=letter.lines,
    )
    headers = letter_headers(refusal, record.headers)
    return OutRecord(REJECTED, record.partition, letter.value, headers, record.key)
