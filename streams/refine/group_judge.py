"""Judge one group of raw records: bytes in, the records of one transaction out.

Pure except for the partition's `State`, which remembers the clean rows. If judging a group fails unexpectedly,
`faults_of` finds the records at fault, and `judge_group` turns each of them into a dead letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from schema.family import Family
from schema.retractions import NO_IDS, Ids
from schema.settings import Settings
from streams.refine.augmenting import augmented
from streams.refine.decode import Intake, RawRecord, RecordLimits, read_group
from streams.refine.judge import judge
from streams.refine.ledger_entries import entries
from streams.refine.outbound import Group, OutRecord, outbound
from streams.refine.state import State

# The reason of a record whose judging or sending failed. The fault is in Feedmill; the record is kept in rejected.
UNPROCESSABLE = "unprocessable"
# Room for the Arrow framing and envelope columns around a row's text within `record_max_bytes`.
_ROW_SHARE = 0.9


@dataclass(frozen=True)
class GroupProgress:
    """Records and rows of one committed group."""

    records: int = 0
    rows_in: int = 0
    rows_clean: int = 0
    rows_rejected: int = 0
    rows_rerouted: int = 0


@dataclass(frozen=True)
class RecordFault:
    """Why a record could not be judged or sent; `is_bare` if even its own bytes could not be sent."""

    message: str
    is_bare: bool = False


@dataclass(frozen=True)
class JudgedGroup:
    """A judged group of raw records, ready to commit.

    Attributes:
        records: the raw records of the group, in offset order.
        state: the state that the group was judged with; it now remembers the group's clean rows.
        outgoing: the records to send.
        position: the raw offset after the group.
        progress: the counts to report once the group is committed.
    """

    records: Sequence[RawRecord]
    state: State
    outgoing: Sequence[OutRecord]
    position: int
    progress: GroupProgress = field(default_factory=GroupProgress)


@dataclass(frozen=True)
class Judge:
    """Judges groups of one raw partition: the family, the settings, and the partition's number and topic.

    `retracted` returns the ids that are retracted, as they are known now.
    """

    family: Family
    settings: Settings
    partition: int
    partitions: int
    topic_id: str
    retracted: Callable[[], Ids] = lambda: NO_IDS

    @property
    def limits(self) -> RecordLimits:
        """Size limits of one raw record."""
        return RecordLimits(
            record_bytes=self.settings.record_max_bytes,
            rows=self.settings.raw_record_max_rows,
            decoded_bytes=self.settings.record_max_decoded_bytes,
            row_bytes=int(self.settings.record_max_bytes * _ROW_SHARE),
        )

    def judge_group(
        self, records: Sequence[RawRecord], state: State, faults: Mapping[int, RecordFault] | None = None
    ) -> JudgedGroup:
        """Return the judged `records`, one group of this partition, with the records of its transaction.

        `faults` are known faults by offset: such a record becomes a dead letter and is not decoded.

        Raises:
            Exception: any type, if a record meets a fault in Feedmill. `state` must not be used again then.
        """
        faults = faults or {}
        # The headers of a bare record may also be the part that cannot be sent.
        records = [
            replace(record, value=None, headers=(), key=None)
            if (fault := faults.get(record.offset)) is not None and fault.is_bare
            else record
            for record in records
        ]
        intake = _read(records, self.family, self.limits, faults)
        filters = self.family.filters(self.settings)
        verdicts = judge(intake.frame, self.family, self.partition, self.partitions, state, self.retracted(), filters)
        copies = self.settings.augment.get(self.family.name, 0.0)
        copies_made = augmented(verdicts.clean, self.family, copies, self.partitions, self.limits.row_bytes)
        copies_per_record = np.bincount(copies_made["record"].to_numpy(), minlength=len(records))
        entry = entries(records, intake, verdicts, copies_per_record, self.family).with_columns(
            source_topic_id=pl.lit(self.topic_id)
        )
        sums = entry.select(pl.sum("rows_in", "rows_clean", "rows_rejected", "rows_rerouted")).row(0)
        outgoing = list(outbound(Group(self.family, records, intake), verdicts, entry, copies_made, self.settings))
        return JudgedGroup(records, state, outgoing, records[-1].offset + 1, GroupProgress(len(records), *sums))

    def faults_of(self, records: Sequence[RawRecord]) -> dict[int, RecordFault]:
        """Return the faults, by offset, of records that fail even when judged alone with an empty state.

        Raises:
            MemoryError: the process has too little memory even for one record, which is no fault of the record.
        """
        faults = {}
        for record in records:
            try:
                self.judge_group([record], State.empty(self.family, self.settings))
            except MemoryError:
                raise
            except Exception as error:
                faults[record.offset] = fault_of(error)
        return faults


def fault_of(error: BaseException, *, is_bare: bool = False) -> RecordFault:
    """Return the record fault for an error."""
    return RecordFault(f"{type(error).__name__}: {error}"[:400], is_bare)


def _read(
    records: Sequence[RawRecord], family: Family, limits: RecordLimits, faults: Mapping[int, RecordFault]
) -> Intake:
    """Decode a group, except for the records with a fault."""
    # A record without a value decodes to a dead letter; its letter gets reason and bytes below.
    unread = [replace(record, value=None, headers=()) if record.offset in faults else record for record in records]
    intake = read_group(unread, family, limits)
    intake.dead = [
        replace(
            letter,
            reason=UNPROCESSABLE,
            message=faults[offset].message,
            value=records[letter.record].value or b"",
        )
        if (offset := records[letter.record].offset) in faults
        else letter
        for letter in intake.dead
    ]
    return intake
