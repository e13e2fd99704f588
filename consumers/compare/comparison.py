"""Two sources against one another: both folded, and the differences that say which covers more, and more evenly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from consumers.compare.profile import DatasetProfile
from consumers.compare.sources import ComparisonSource
from schema.family import Family

# Called with the sides that are done, and the rows read so far of both.
OnProgress = Callable[[int, int], None]

# What a difference in a measure means for the side that has more of it.
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
    """Return what both sources hold, and how they differ, ready for JSON.

    Args:
        family: of both.
        a: one source.
        b: the other.
        near: the Jaccard similarity from which two rows are near duplicates.
        limit: rows read of each, the first ones; None reads all.
        on_progress: called after every frame.

    Returns:
        family; a and b: `source`, and the keys of `DatasetProfile.report`; differences: those of `differences`.

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
    return {"family": family.name, "a": sides[0], "b": sides[1], "differences": differences(*sides)}


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return [{measure, a, b, difference, better}] of two sides of one family, in the order of their keys.

    `measure` is the way to the value among a side's keys, and `difference` is b's less a's, null where one has none.
    `better` is "a" or "b", or null where neither is, as for the mean of a column. What is counted of rows is better
    where it is the smaller share of them.
    """
    found = []
    for measure, of_a, of_b, sense, wholes in _measures(a, b):
        apart = None if of_a is None or of_b is None else of_b - of_a
        lead = 0.0 if of_a is None or of_b is None else sense * (of_b / wholes[1] - of_a / wholes[0])
        better = "b" if lead > 0 else "a" if lead < 0 else None
        found.append({"measure": measure, "a": of_a, "b": of_b, "difference": apart, "better": better})
    return found


_Measure = tuple[str, float | None, float | None, int, tuple[int, int]]


def _measures(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[_Measure]:
    """Yield (measure, a's value, b's, what more of it means, and what each is a share of)."""

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
        for what in ("min", "max", "mean"):
            yield one("numbers", column, what, sense=_NEITHER)
    yield one("duplicates", sense=_WORSE, of="rows")
    yield one("near_duplicates", sense=_WORSE, of="sample_rows")
    yield one("diversity", sense=_BETTER)
    yield one("distinct_ngrams", sense=_BETTER)
    yield one("quotas_met", sense=_BETTER)


def _at(side: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    found: Any = side
    for key in keys:
        found = found[key]
    return found
