"""Filters that a training run applies to documents, as SQL conditions for a feed, and how many documents pass them.

The conditions are those of the refine stage (`schema.source_code.filters`), and paths of examples and benchmarks. A
feed's state and manifest hold them as text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import polars as pl

from broker.clients import Connection
from consumers.row_filter import RowFilter
from consumers.source_code.clean_texts import train_rows
from schema.errors import UsageError
from schema.source_code import FAMILY
from schema.source_code.languages import FIRST_CLASS

_EXAMPLES = "(^|/)(examples|example)/"
_BENCHES = "(^|/)(benches|bench|benchmarks|benchmark)/|(^|/)bench_[^/]*[.]py$|_bench[.](py|rs|go)$"


@dataclass(frozen=True, kw_only=True)
class DocumentFilters:
    """Which documents a run learns from.

    Attributes:
        min_length, max_length: characters.
        exclude_tests: leave out the role `tests`; items of tests inside a file stay (`--skip-tests` of the producer
            removes them).
        exclude_examples, exclude_benches: leave out folders and files by path.
        prefer_idiomatic: an idiomatic pattern, and two of them for each low-quality mark (Python and Rust).
        prefer_documented: a doc comment or docstring (Python and Rust).
        languages: only these; None takes all.
        where: a further condition.
    """

    min_length: int = 0
    max_length: int = 200_000
    exclude_tests: bool = False
    exclude_examples: bool = False
    exclude_benches: bool = False
    prefer_idiomatic: bool = False
    prefer_documented: bool = False
    languages: tuple[str, ...] | None = None
    where: str | None = None

    def conditions(self) -> dict[str, str]:
        """Return an SQL condition for each reason to leave a document out, true for one that passes.

        >>> DocumentFilters(min_length=64, exclude_tests=True).conditions()
        {'text_too_short': 'characters >= 64', 'text_too_long': 'characters <= 200000', 'test': "role <> 'tests'"}
        """
        others = f"language NOT IN ({_listed(FIRST_CLASS)})"
        chosen = {
            "text_too_short": f"characters >= {self.min_length}",
            "text_too_long": f"characters <= {self.max_length}",
        }
        if self.exclude_tests:
            chosen["test"] = "role <> 'tests'"
        if self.exclude_examples:
            chosen["example"] = f"NOT regexp_matches(path, '{_EXAMPLES}')"
        if self.exclude_benches:
            chosen["bench"] = f"NOT regexp_matches(path, '{_BENCHES}')"
        if self.prefer_idiomatic:
            chosen["not_idiomatic"] = f"(idiomatic >= 1 AND idiomatic >= 2 * low_quality) OR {others}"
        if self.prefer_documented:
            chosen["not_documented"] = f"documented OR {others}"
        if self.languages is not None:
            chosen["other_language"] = f"language IN ({_listed(self.languages)})"
        if self.where is not None:
            chosen["where"] = self.where
        return chosen

    @property
    def sql(self) -> str:
        """All conditions as one, for `FeedOptions.where`."""
        # Two brackets keep a condition such as `a) OR (b` together, and the line break ends a comment.
        return " AND ".join(f"(({condition}\n))" for condition in self.conditions().values())


@dataclass(frozen=True)
class FilterCounts:
    """How many documents of the split train there are, how many pass, and how many fail each filter.

    A document that fails several filters counts in each of them.

    Attributes:
        documents: of the split.
        passed: of these, the ones that pass.
        filtered: failed documents by reason.
        kinds: passed documents by `kind`.
    """

    documents: int
    passed: int
    filtered: Mapping[str, int]
    kinds: Mapping[str, int]

    def __str__(self) -> str:
        share = f" ({self.passed / self.documents:.1%})" if self.documents else ""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.filtered.items() if count)
        return f"{self.passed:,}/{self.documents:,} documents{share}, filtered by reason: {reasons or 'none'}"


def count_documents(connection: Connection, filters: DocumentFilters) -> FilterCounts:
    """Return how many documents of code.clean, split train, pass the filters now; retracted ones are not counted.

    Raises:
        UsageError: the condition `where` is refused.
        BrokerError: there is no clean topic, or the broker cannot be read.
        ReplayError: a record cannot be read.
    """
    documents = passed = 0
    filtered: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        tests = {
            reason: stack.enter_context(RowFilter(condition, FAMILY.wire, UsageError))
            for reason, condition in filters.conditions().items()
        }
        names = frozenset({"kind"}).union(*(test.names for test in tests.values()))
        for rows in train_rows(connection, names):
            kept = pl.DataFrame({reason: test.mask(rows) for reason, test in tests.items()})
            documents += rows.height
            passes = rows.filter(kept.select(pl.all_horizontal(pl.all())).to_series())
            passed += passes.height
            kinds.update(passes["kind"].to_list())
            filtered.update({reason: int((~kept[reason]).sum()) for reason in tests})
    return FilterCounts(documents, passed, {reason: filtered[reason] for reason in tests}, dict(sorted(kinds.items())))


def _listed(texts: tuple[str, ...] | frozenset[str] | list[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in sorted(texts))
