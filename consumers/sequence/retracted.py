"""The retracted rows of a feed: which ones its spec leaves out, and what a resumed state must do about new ones.

A source has two bounds of its retractions topic. Rows that are retracted below `retractions` are left out before
batches are planned. Rows that are retracted between it and `withdrawn` are in the plan, because the state was saved
before they were retracted. They are dropped from the planned batches, so all other rows keep their places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from broker.clients import Connection
from broker.retractions import (
    RetractionBound,
    retracted_ids,
    retraction_bound,
    retraction_entries,
    retractions_beside,
)
from consumers.sequence.cursor import Bounds, Cursor
from consumers.sequence.lineage import SOURCE, TOKENS
from consumers.sequence.planning import PlannedBatch
from consumers.sequence.spec import FeedSpec
from schema.errors import FeedError, FeedmillError
from schema.retractions import COLUMNS, KEY, WIRE_IDS, Ids, is_retracted, sorted_ids

# Whether a row is in the plan and must be dropped from its batch.
WITHDRAWN = "_withdrawn"
_REASONS_SHOWN = 3


@dataclass(frozen=True)
class LeftOut:
    """The retracted ids of one source: those that were known when batches were planned, and those known since."""

    planned: Ids
    withdrawn: Ids


class RetractedRows:
    """Leaves retracted rows out, and marks those that must be dropped from planned batches.

    Args:
        sources: the ids of each source; () if nothing is retracted.

    Attributes:
        columns: the columns of the family that are read for it.
        schema: the column that is added to the rows.
    """

    def __init__(self, sources: Sequence[LeftOut] = ()) -> None:
        self._sources = sources
        leaves_out = any(source.planned.size or source.withdrawn.size for source in sources)
        self._marks = any(source.withdrawn.size for source in sources)
        self.columns = frozenset(WIRE_IDS) if leaves_out else frozenset[str]()
        self.schema: dict[str, pl.DataType] = {WITHDRAWN: pl.Boolean()} if self._marks else {}

    def without(self, rows: pl.DataFrame, source: int) -> pl.DataFrame:
        """Return the rows of a source without those that its plan leaves out, marked by `WITHDRAWN` if needed."""
        if not self.columns:
            return rows
        ids = self._sources[source]
        if ids.planned.size:
            rows = rows.filter(~is_retracted(rows, ids.planned))
        return rows.with_columns(is_retracted(rows, ids.withdrawn).alias(WITHDRAWN)) if self._marks else rows


def read_retracted(connection: Connection, spec: FeedSpec) -> RetractedRows:
    """Return the retracted rows of a pass, read up to the bounds of the spec.

    Raises:
        BrokerError: the broker does not answer.
        FeedError: a retractions topic was created again or shortened, or a record of it cannot be decoded.
    """
    sources = []
    for source in spec.sources:
        topic = retractions_beside(source.topic)
        planned = retracted_ids(connection, topic, source.retractions, FeedError)
        newer = source.withdrawn if source.withdrawn != source.retractions else None
        sources.append(LeftOut(planned, retracted_ids(connection, topic, newer, FeedError)))
    return RetractedRows(sources)


def dropped_from(rows: pl.DataFrame, batches: list[PlannedBatch]) -> list[PlannedBatch]:
    """Return the planned batches of a window without its withdrawn rows; a batch may become empty."""
    if WITHDRAWN not in rows.columns or not rows[WITHDRAWN].any():
        return batches
    gone, tokens = rows[WITHDRAWN].to_numpy(), rows[TOKENS].to_numpy()
    return [batch.without(gone, tokens) for batch in batches]


def bounds_now(connection: Connection, spec: FeedSpec) -> tuple[RetractionBound | None, ...]:
    """Return the present bound of each source's retractions, for a pass that begins now.

    Raises:
        BrokerError: the broker does not answer.
    """
    return tuple(retraction_bound(connection, retractions_beside(source.topic)) for source in spec.sources)


def with_new_retractions(connection: Connection, spec: FeedSpec, cursor: Cursor, leave_out: bool) -> FeedSpec:
    """Return the spec of a saved state with the present bounds, if no row of it was retracted since, or `leave_out`.

    Raises:
        BrokerError: the broker does not answer.
        FeedError: rows within the state's offsets were retracted, or a retractions topic was created again.
    """
    sources, reasons = [], Counter[str]()
    for number, source in enumerate(spec.sources):
        topic = retractions_beside(source.topic)
        planned = source.retractions if cursor.retractions is None else cursor.retractions[number]
        known = source.withdrawn or planned
        now = retraction_bound(connection, topic)
        if now == known:
            sources.append(source)
            continue
        if now is None or (known is not None and known.topic_id != now.topic_id):
            raise FeedError(
                f"{topic} was deleted or created again since the state was saved, so it is unknown which rows are "
                "retracted: begin a new run without the state"
            )
        begin = 0 if known is None else known.end
        entries = retraction_entries(connection, topic, now, FeedError, begin=begin).unique(KEY)
        if spec.split is not None:
            entries = entries.filter(pl.col("split") == spec.split)
        bounds = source.bounds if cursor.bounds is None else cursor.bounds[number]
        reasons.update(entries.filter(_within(entries, bounds))["reason"].to_list())
        sources.append(replace(source, withdrawn=now))
    if reasons and not leave_out:
        raise FeedError(
            f"{reasons.total():,} rows within the offsets of this state were retracted since it was saved "
            f"({reasons_text(reasons)}): go on without them with the option leave_out_retracted (`feedmill train "
            f"{spec.family} --resume --leave-out-retracted`), which makes the batches smaller that hold them, or begin "
            "a new run"
        )
    return replace(spec, sources=tuple(sources))


class RetractedSince:
    """The rows of a run's manifest that are retracted now, but were not when the run's batches were planned.

    Args:
        connection: the broker to read from.
        spec: the run's spec.
        error: class of the errors about the retractions topic.

    Attributes:
        bounds: the present bound of each source's retractions.
        reasons: counts of the rows that `without` left out, by reason.

    Raises:
        BrokerError: the broker does not answer.
        FeedmillError: of the class `error`: a retractions topic was shortened, or a record of it cannot be decoded.
    """

    def __init__(self, connection: Connection, spec: FeedSpec, error: type[FeedmillError]) -> None:
        self.bounds = bounds_now(connection, spec)
        self.reasons: Counter[str] = Counter()
        self._known: dict[int, tuple[Ids, pl.DataFrame]] = {}
        for number, (source, bound) in enumerate(zip(spec.sources, self.bounds, strict=True)):
            if bound != source.retractions and bound is not None:
                columns = {name: COLUMNS[name] for name in ("example_id", "reason")}
                topic = retractions_beside(source.topic)
                entries = retraction_entries(connection, topic, bound, error, columns=columns)
                self._known[number] = sorted_ids(entries), entries.unique("example_id", keep="first")

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that are not retracted; `rows` have `example_id`, `augmented_from` and `SOURCE`."""
        for number, (ids, entries) in self._known.items():
            gone = is_retracted(rows, ids) & (rows[SOURCE] == number)
            if gone.any():
                named = rows.filter(gone).select(*WIRE_IDS)
                named = named.join(entries, on="example_id", how="left", nulls_equal=False)
                of_origin = entries.rename({"example_id": "augmented_from", "reason": "of_origin"})
                named = named.join(of_origin, on="augmented_from", how="left", nulls_equal=False)
                self.reasons.update(named.select(pl.coalesce("reason", "of_origin")).to_series().to_list())
                rows = rows.filter(~gone)
        return rows


def reasons_text(reasons: Counter[str]) -> str:
    """Return the most frequent reasons for an error line.

    >>> reasons_text(Counter({"licence withdrawn": 3, "asked out": 1}))
    '3 licence withdrawn, 1 asked out'
    """
    shown = [f"{rows:,} {reason}" for reason, rows in reasons.most_common(_REASONS_SHOWN)]
    return ", ".join([*shown, "..."] if len(reasons) > _REASONS_SHOWN else shown)


def _within(entries: pl.DataFrame, bounds: Bounds) -> pl.Series:
    partition, offset = entries["partition"].to_numpy(), entries["offset"].to_numpy()
    inside = np.zeros(entries.height, dtype=np.bool_)
    for number, extent in bounds.items():
        inside |= (partition == number) & (offset >= extent.begin) & (offset < extent.end)
    return pl.Series(inside, dtype=pl.Boolean)
