"""Rows on their way into a comparison: frames of a family, and what is no row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import polars as pl

from schema.family import Family
from schema.json_rows import read_lines
from schema.registry import FAMILIES

# Rows judged at once: judging costs mostly per call, and this many long rows are some tens of megabytes.
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Rows:
    """Some rows of a source: a frame of the family's wire columns, and what is no row, counted by reason."""

    frame: pl.DataFrame
    refused: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height + sum(self.refused.values())

    def head(self, count: int) -> Rows:
        """Return `count` of the rows at most: the frame's first, and then what is no row."""
        left = max(0, count - self.frame.height)
        kept = islice(Counter(self.refused).elements(), left)
        return Rows(self.frame.head(count), Counter(kept))


def families_with(columns: Iterable[str]) -> list[str]:
    """Return the names of the families all of whose required columns are among `columns`."""
    held = set(columns)
    return [
        name
        for name, family in FAMILIES.items()
        if held
        >= {column for column, kind in family.rules.columns().items() if not kind.nullable} & set(family.columns)
    ]


def rows_of_lines(lines: Sequence[bytes], family: Family) -> Rows:
    """Return the rows of JSON lines, and the lines that are none; ids and splits are null."""
    frame, others = read_lines(lines, family)
    return Rows(frame, Counter(other.reason for other in others))
