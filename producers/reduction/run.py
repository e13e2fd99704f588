"""The reduction producer's run: blocks of chunks as work units, and the rows of a block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import polars as pl

from producers.reduction.recipe import DEFAULT_FUEL, DEFAULT_SIZE_CAP, EXAMPLES_PER_TRACE, LARGEST_SIZE
from producers.run import ProducerRun
from schema.errors import UsageError
from schema.family import Family
from schema.reduction import FAMILY

# About 22,000 rows and ten megabytes: a few full records for each of several partitions.
_BLOCK_CHUNKS = 200
# A whole trace is in memory while its examples are chosen, one byte a node; with `all_steps`, a whole chunk is.
_TRACE_LIMIT_BYTES = 1 << 30
_TRACE_LIMIT_ALL_STEPS_BYTES = 1 << 26


@dataclass(frozen=True)
class WorkUnit:
    """Chunks first..first + chunks - 1 of a run."""

    first: int
    chunks: int


@dataclass(frozen=True)
class ReductionRun(ProducerRun[WorkUnit]):
    """The parameters of a run; its rows depend on `seed`, `fuel`, `all_steps` and `size_cap`, and are cut at `count`.

    Attributes:
        fuel: the most beta steps of a trace.
        all_steps: if true, every reducible term of a trace and its normal form are examples; else at most 32 of them.
        size_cap: the most nodes of a term; a trace ends before a larger term.

    Raises:
        UsageError: a value is out of range.
    """

    count: int
    family: ClassVar[Family] = FAMILY
    fuel: int = DEFAULT_FUEL
    all_steps: bool = False
    size_cap: int = DEFAULT_SIZE_CAP

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(fuel=1, size_cap=LARGEST_SIZE)
        limit = _TRACE_LIMIT_ALL_STEPS_BYTES if self.all_steps else _TRACE_LIMIT_BYTES
        if self.fuel * self.size_cap > limit:
            raise UsageError(
                f"fuel is {self.fuel}, and a trace of that many steps needs too much memory: give a fuel of "
                f"{limit // self.size_cap} or less"
            )

    @property
    def examples_per_trace(self) -> int:
        """The most examples that one trace gives."""
        return self.fuel + 1 if self.all_steps else EXAMPLES_PER_TRACE

    def plan(self) -> Iterator[WorkUnit]:
        """Yield blocks of chunks without end, because nobody knows the rows of a chunk before it is made."""
        # Runs whose traces give more examples than usual use smaller blocks.
        chunks = max(1, _BLOCK_CHUNKS * EXAMPLES_PER_TRACE // max(self.examples_per_trace, EXAMPLES_PER_TRACE))
        return (WorkUnit(first, chunks) for first in count(0, chunks))

    def rows(self, unit: WorkUnit) -> pl.DataFrame:
        """Return the rows of a block of chunks."""
        # Imported here because it loads compiled code, which a process that only describes a run does not need.
        from producers.reduction.chunks import make_chunks

        return make_chunks(self, unit.first, unit.chunks)
