"""Retract the rows of clean that a filter selects, and the rows that were augmented from them.

    1. Read the entries that are in the retractions topic now, and fix the ends of clean.
    2. Read clean; take the rows that the filter selects.
    3. Read clean again; take the rows whose origin is retracted now or was before.
    4. Write an entry for each row that has none yet, all in one transaction.

A killed run has written nothing, and the next run ends its transaction. Nothing is removed from clean.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from kafka.errors import KafkaError, ProducerFencedError

from broker.clients import Connection
from broker.retractions import retraction_bound, retraction_entries
from broker.topics import Extent, ensure_topics, extents, topic_name, undecided
from consumers.reading import OffsetBlock, Record, TopicReader
from consumers.row_filter import RowFilter
from schema.decoding import Kind, decode_record, is_foreign
from schema.errors import DeliveryError, ReplayError, UsageError
from schema.family import Family
from schema.record import CLEAN, RETRACTIONS, Envelope, encode_parts, to_table
from schema.retractions import COLUMNS, KEY, VERSION, WIRE_IDS, coverage_of, is_retracted, sorted_ids

REASON_MAX_CHARS = 1_000
NO_REASON = "no reason given"
# The columns of an entry that differ from row to row.
_ROW_COLUMNS = {name: COLUMNS[name] for name in (*WIRE_IDS, "split", "partition", "offset", "coverage")}
# How long the markers of a committed transaction may take.
_MARKERS_S = 30.0
_LOOK_INTERVAL_S = 0.02

# Called with the number of offsets read so far, and the number of offsets to read.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ForgetReport:
    """The counts of one retraction.

    Attributes:
        where: the filter.
        rows_found: rows of clean that the filter selects.
        rows_of_origins: further rows whose origin (`augmented_from`) is retracted.
        rows_retracted_before: those of both kinds that were retracted before.
        rows_retracted: entries written; in a dry run, entries that would be written.
        offsets: {partition: end} of the part of clean that was searched.
    """

    family: str
    topic: str
    where: str
    reason: str
    dry_run: bool
    rows_found: int
    rows_of_origins: int
    rows_retracted_before: int
    rows_retracted: int
    offsets: dict[int, int]


def forget(
    connection: Connection,
    family: Family,
    where: str,
    reason: str = NO_REASON,
    *,
    dry_run: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> ForgetReport:
    """Retract the rows of clean for which `where` is true, and the rows that were augmented from retracted rows.

    Args:
        connection: the broker to read from and to write to.
        family: the family whose rows are retracted; missing topics of it are created.
        where: an SQL condition over the family's columns.
        reason: a text for reports, such as the name of the owner who asked for it.
        dry_run: count the rows and write nothing.
        on_progress: called after each record.

    Raises:
        UsageError: the filter is refused, or the reason is empty or too long.
        BrokerError: the broker cannot be read; DeliveryError: it did not take the entries.
        ReplayError: a record cannot be decoded, or retractions were lost.
    """
    if not 0 < len(reason) <= REASON_MAX_CHARS:
        raise UsageError(f"the reason has {len(reason)} characters: give 1 to {REASON_MAX_CHARS}")
    topic = topic_name(connection.settings, family.name, RETRACTIONS)
    with RowFilter(where, family.wire, UsageError) as row_filter:
        ensure_topics(connection, [family.name])
        before = _entries_now(connection, topic)  # 1
        clean = _Clean(connection, family, on_progress)
        found = pl.concat([_no_rows(), *clean.rows(row_filter.names, row_filter.mask)])  # 2
        ids = sorted_ids(pl.concat([before.select("example_id"), found.select("example_id")]))
        of_origins = _no_rows()
        if ids.size:
            # The filter does not know these columns' rows, so they are looked for by id.
            marked = clean.rows(frozenset(), lambda rows: is_retracted(rows, ids))  # 3
            of_origins = pl.concat([_no_rows(), *marked]).join(found, on=KEY, how="anti", maintain_order="left")
    both = pl.concat([found, of_origins])
    new = both.join(before, on=KEY, how="anti", maintain_order="left")
    if new.height and not dry_run:
        constants = {"reason": reason, "requested": where, "time": datetime.now(UTC)}
        _write(connection, family, topic, new, constants)  # 4
    return ForgetReport(
        family=family.name,
        topic=topic,
        where=where,
        reason=reason,
        dry_run=dry_run,
        rows_found=found.height,
        rows_of_origins=of_origins.height,
        rows_retracted_before=both.height - new.height,
        rows_retracted=new.height,
        offsets={number: extent.end for number, extent in sorted(clean.ranges.items())},
    )


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(schema=_ROW_COLUMNS)


def _entries_now(connection: Connection, topic: str) -> pl.DataFrame:
    bound = retraction_bound(connection, topic)
    columns = {name: COLUMNS[name] for name in KEY}
    if bound is None:
        return pl.DataFrame(schema=columns)
    return retraction_entries(connection, topic, bound, ReplayError, columns=columns)


class _Clean:
    """The committed rows of clean up to the ends at its creation; each call of `rows` reads them once.

    Attributes:
        ranges: the offsets, by partition.
    """

    def __init__(self, connection: Connection, family: Family, on_progress: OnProgress) -> None:
        self._connection, self._family, self._on_progress = connection, family, on_progress
        self._topic = topic_name(connection.settings, family.name, CLEAN)
        self._kind: Kind = (family.name, CLEAN, family.version)
        self.ranges: Mapping[int, Extent] = extents(connection, self._topic)

    def rows(self, names: frozenset[str], mask: Callable[[pl.DataFrame], pl.Series]) -> Iterator[pl.DataFrame]:
        """Yield `_ROW_COLUMNS` of the rows for which `mask` is true, record by record; it reads `names` and the ids."""
        family = self._family
        columns = {name: kind for name, kind in family.wire.items() if name in names or name in WIRE_IDS}
        for record in self._records():
            chosen = mask(self._decoded(record, columns))
            if chosen.any():
                rows = self._decoded(record, family.wire).filter(chosen)
                yield rows.select(
                    *WIRE_IDS,
                    "split",
                    pl.lit(record.partition, dtype=pl.Int32).alias("partition"),
                    pl.lit(record.offset, dtype=pl.Int64).alias("offset"),
                    coverage_of(rows, family),
                )

    def _records(self) -> Iterator[Record]:
        sizes = {number: extent.end - extent.begin for number, extent in sorted(self.ranges.items())}
        blocks = [OffsetBlock(number, self.ranges[number].begin, self.ranges[number].end) for number in sizes]
        total = sum(sizes.values())
        with TopicReader(self._connection, self._topic, ReplayError) as reader:
            for _, record in reader.records(blocks):
                if not is_foreign(record, self._topic, self._kind):
                    yield record
                before = sum(size for number, size in sizes.items() if number < record.partition)
                self._on_progress(before + record.offset + 1 - self.ranges[record.partition].begin, total)

    def _decoded(self, record: Record, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
        return decode_record(record, self._topic, self._kind, columns, ReplayError)


def _write(
    connection: Connection, family: Family, topic: str, entries: pl.DataFrame, constants: Mapping[str, object]
) -> None:
    """Write the entries with the columns `constants` in one transaction, and return when every reader can see them."""
    settings = connection.settings
    run = f"forget-{uuid.uuid4().hex[:8]}"
    try:
        # The id is that of the topic, so that a new run ends the transaction of a killed one.
        with closing(connection.producer(transactional_id=topic)) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            sent = []
            for chunk, part in enumerate(entries.iter_slices(settings.rows_per_record)):
                whole = part.with_columns(pl.lit(value).alias(name) for name, value in constants.items())
                table = to_table(whole.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items()))
                pieces = encode_parts(table, settings.rows_per_record, settings.record_max_bytes)
                for number, (rows, data) in enumerate(pieces):
                    headers = Envelope(family.name, RETRACTIONS, VERSION, run, chunk, number, rows).headers()
                    sent.append(producer.send(topic, data, partition=0, headers=headers))
            for future in sent:
                future.get(timeout=_MARKERS_S)
            producer.commit_transaction()
    except ProducerFencedError as error:
        raise DeliveryError(
            f"another `feedmill forget {family.name}` began while this one wrote to {topic}, and nothing was written: "
            "run this one again"
        ) from error
    except KafkaError as error:
        raise DeliveryError(
            f"{topic} did not take the retractions ({type(error).__name__}: {error}): run the command again; rows that "
            "were retracted count once"
        ) from error
    deadline = time.monotonic() + _MARKERS_S
    while undecided(connection, topic) and time.monotonic() < deadline:
        time.sleep(_LOOK_INTERVAL_S)
