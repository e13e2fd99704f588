"""Compare two sources: a profile of each, and for every measure the difference and the better side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from consumers.compare.profile import DatasetProfile
from consumers.compare.sources import ComparisonSource
from schema.family import Family
from schema.response_measures import HUMAN

# Called with the number of finished sides, and the rows read so far on both sides.
OnProgress = Callable[[int, int], None]

# Whether more of a measure makes a side better, worse or neither.
_BETTER, _WORSE, _NEITHER = 1, -1, 0


def compare(
    family: Family,
    a: ComparisonSource,
    b: ComparisonSource,
    *,
    near: float,
    limit: int | None = None,
    on_progress: OnProgress = lambda sides, rows: None,
) -> dict[str, Any]:
    """Return the profiles of both sources and their differences, ready for JSON.

    Args:
        family: the family of both sources.
        a: one source.
        b: the other source.
        near: the Jaccard similarity from which two rows are near duplicates.
        limit: read only this many rows of each source; None reads all.
        on_progress: called after every frame.

    Returns:
        family; a and b: `source` and the keys of `DatasetProfile.report`; human: the known measures of
        texts that people wrote, under the same keys; differences: the list of `differences`.

    Raises:
        UsageError, BrokerError, ReplayError: a source cannot be read.
    """
    done = 0
    sides: list[dict[str, Any]] = []
    for source in (a, b):
        tally = DatasetProfile(family, near)
        for rows in source.rows(family):
            tally.take(rows if limit is None else rows.head(limit - tally.rows))
            on_progress(len(sides), done + tally.rows)
            if tally.rows == limit:
                break
        done += tally.rows
        sides.append({"source": source.name, **tally.report()})
        on_progress(len(sides), done)
    human = {"responses": HUMAN} if family.response else {}
    return {"family": family.name, "a": sides[0], "b": sides[1], "human": human, "differences": differences(*sides)}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return [{measure, a, b, difference, better}] of two sides of one family, in the order of their keys.

    `measure` is the path of keys to the value in a side. `difference` is b minus a, null if a side has no value.
    `better` is "a", "b" or null, as for the mean of a column. Invalid and duplicate rows are compared as shares of the
    rows checked; the smaller share is better.
    """
    entries = []
    for measure, of_a, of_b, sense, wholes in _measures(a, b):
        apart = None if of_a is None or of_b is None else of_b - of_a
        lead = 0.0 if of_a is None or of_b is None else sense * (of_b / wholes[1] - of_a / wholes[0])
        better = "b" if lead > 0 else "a" if lead < 0 else None
        entries.append({"measure": measure, "a": of_a, "b": of_b, "difference": apart, "better": better})
    return entries


_Measure = tuple[str, float | None, float | None, int, tuple[int, int]]


def _measures(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[_Measure]:
    """Yield (measure, value of a, value of b, `_BETTER`, `_WORSE` or `_NEITHER`, the totals of a and b)."""

    def one(*keys: str, sense: int, of: str | None = None) -> _Measure:
        values = [_at(side, keys) for side in (a, b)]
        wholes = (max(a[of], 1), max(b[of], 1)) if of else (1, 1)
        return ".".join(keys), values[0], values[1], sense, wholes

    yield one("rows", sense=_NEITHER)
    yield one("rows_invalid", sense=_WORSE, of="rows")
    for axis in a["axes"]:
        yield one("axes", axis, "covered", sense=_BETTER)
        yield one("axes", axis, "balance", sense=_BETTER)
    yield one("cells", "covered", sense=_BETTER)
    yield one("cells", "balance", sense=_BETTER)
    for column in a["numbers"]:
        for statistic in ("min", "max", "mean"):
            yield one("numbers", column, statistic, sense=_NEITHER)
    yield one("duplicates", sense=_WORSE, of="rows")
    yield one("near_duplicates", sense=_WORSE, of="sample_rows")
    yield one("distinct_ngrams", sense=_BETTER)
    if a["responses"] or b["responses"]:
        yield one("responses", "repeated_sentences", sense=_WORSE)
        yield one("responses", "distinct_4grams", sense=_BETTER)
        yield one("responses", "gzip_ratio", sense=_WORSE)
        yield one("responses", "beginning_accuracy", sense=_NEITHER)
    yield one("quotas_met", sense=_BETTER)


def _at(side: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = side
    for key in keys:
        value = None if value is None else value[key]
    return value
