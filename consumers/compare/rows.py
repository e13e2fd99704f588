"""Comparison input: parsed rows, and unreadable lines counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import polars as pl

from schema.family import Family
from schema.json_rows import read_lines
from schema.registry import FAMILIES

# Rows checked at once. Most of the cost is per call, and this many long rows take some tens of megabytes.
ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Rows:
    """Some rows of a source: a frame of the family's wire columns, and unreadable lines counted by reason."""

    frame: pl.DataFrame
    refused: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height + sum(self.refused.values())

    def head(self, count: int) -> Rows:
        """Return at most `count` rows: the first of the frame, and then unreadable lines."""
        left = max(0, count - self.frame.height)
        kept = islice(Counter(self.refused).elements(), left)
        return Rows(self.frame.head(count), Counter(kept))


def families_with(columns: Iterable[str]) -> list[str]:
    """Return the names of the families that find all their required columns among `columns`."""
    present = set(columns)
    return [
        name
        for name, family in FAMILIES.items()
        if present
        >= {column for column, kind in family.rules.columns().items() if not kind.nullable} & set(family.columns)
    ]


def rows_of_lines(lines: Sequence[bytes], family: Family) -> Rows:
    """Parse JSON lines into rows and counts of unreadable lines; ids and splits are null."""
    frame, unreadable = read_lines(lines, family)
    return Rows(frame, Counter(other.reason for other in unreadable))
