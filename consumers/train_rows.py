"""The rows of a clean topic, in the topic's order, and how many of split train pass the filters of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import polars as pl

from broker.clients import Connection
from broker.retractions import retracted_ids, retraction_bound
from broker.topics import topic_name
from consumers.reading import OffsetBlock, TopicReader
from consumers.replay.bounds import resolve
from consumers.row_filter import RowFilter
from schema.decoding import decode_record, is_foreign
from schema.errors import ReplayError, UsageError
from schema.family import Family
from schema.record import CLEAN, RETRACTIONS
from schema.retractions import is_retracted

# Which rows are read depends on these columns.
_ALWAYS = ("split", "example_id", "augmented_from")


@dataclass(frozen=True)
class RowCounts:
    """How many rows of the split train there are, how many pass, and how many fail each filter.

    A row that fails several filters counts in each of them.

    Attributes:
        rows: of the split.
        passed: of these, the ones that pass.
        filtered: failed rows by reason.
        kinds: passed rows by kind.
    """

    rows: int
    passed: int
    filtered: Mapping[str, int]
    kinds: Mapping[str, int]

    def __str__(self) -> str:
        share = f" ({self.passed / self.rows:.1%})" if self.rows else ""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.filtered.items() if count)
        return f"{self.passed:,}/{self.rows:,} rows{share}, filtered by reason: {reasons or 'none'}"


def count_rows(connection: Connection, family: Family, conditions: Mapping[str, str], kinds: str) -> RowCounts:
    """Return how many rows of split train pass; retracted rows are not counted.

    Args:
        connection: the broker.
        family: whose clean topic is read.
        conditions: an SQL condition for each reason to leave a row out, true for one that passes.
        kinds: the column of `RowCounts.kinds`.

    Raises:
        UsageError: a condition is refused.
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    count = passed = 0
    filtered: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    with ExitStack() as stack:
        tests = {
            reason: stack.enter_context(RowFilter(condition, family.wire, UsageError))
            for reason, condition in conditions.items()
        }
        names = frozenset({kinds}).union(*(test.names for test in tests.values()))
        for rows in train_rows(connection, family, names):
            kept = {reason: test.mask(rows) for reason, test in tests.items()}
            passes = rows.filter(*kept.values())
            count += rows.height
            passed += passes.height
            by_kind.update(passes[kinds].to_list())
            filtered.update({reason: int((~mask).sum()) for reason, mask in kept.items()})
    return RowCounts(count, passed, {reason: filtered[reason] for reason in tests}, dict(sorted(by_kind.items())))


def train_rows(connection: Connection, family: Family, names: Collection[str]) -> Iterator[pl.DataFrame]:
    """Yield the rows of split train as `clean_rows` does."""
    for rows in clean_rows(connection, family, names):
        yield rows.filter(pl.col("split") == "train")


def clean_rows(connection: Connection, family: Family, names: Collection[str]) -> Iterator[pl.DataFrame]:
    """Yield the rows that are not retracted, with the columns `names`, record by record.

    Raises:
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    topic = topic_name(connection.settings, family.name, CLEAN)
    kind = (family.name, CLEAN, family.version)
    columns = {name: family.wire[name] for name in {*names, *_ALWAYS}}
    ranges = resolve(connection, topic, None, None)
    retractions = topic_name(connection.settings, family.name, RETRACTIONS)
    ids = retracted_ids(connection, retractions, retraction_bound(connection, retractions), ReplayError)
    blocks = [OffsetBlock(number, extent.begin, extent.end) for number, extent in sorted(ranges.items())]
    with TopicReader(connection, topic, ReplayError) as reader:
        for _, record in reader.records(blocks):
            if not is_foreign(record, topic, kind):
                rows = decode_record(record, topic, kind, columns, ReplayError)
                yield rows.filter(~is_retracted(rows, ids))
