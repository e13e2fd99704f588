"""What every family's tensor batch carries, and what a family declares to be fed: its tensor form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import polars as pl
import torch

# Columns that the feed adds to a window's rows: where each row was read.
PARTITION, OFFSET = "_partition", "_offset"
LINEAGE = {PARTITION: pl.Int32(), OFFSET: pl.Int64()}


@dataclass(frozen=True, eq=False)
class Position:
    """Where the rows of a batch were read: `partition` (B,) int32 and `offset` (B,) int64 of their records."""

    topic: str
    partition: torch.Tensor
    offset: torch.Tensor

    @classmethod
    def of(cls, rows: pl.DataFrame, topic: str) -> Position:
        """Return the position of rows that carry the `LINEAGE` columns."""
        partition, offset = (torch.from_numpy(rows[name].to_numpy().copy()) for name in (PARTITION, OFFSET))
        return cls(topic, partition, offset)

    def rows(self, start: int, stop: int) -> Position:
        """Return the position of rows [start, stop), in memory of its own."""
        return Position(self.topic, self.partition[start:stop].clone(), self.offset[start:stop].clone())


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A padded micro-batch; B rows, T tokens.

    Attributes:
        attention_mask: (B, T) bool, true on real tokens.
        example_id: (B,) int64, the bits of the uint64 id (torch cannot pickle uint64 tensors); `hex_ids` prints them.
        position: where each row was read.
        too_long: rows that this pass left out so far for having more tokens than the feed's `max_tokens`.
    """

    attention_mask: torch.Tensor
    example_id: torch.Tensor
    position: Position
    too_long: int

    def __len__(self) -> int:
        return int(self.example_id.shape[0])

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.attention_mask.sum())

    @property
    def hex_ids(self) -> list[str]:
        """The example ids as in JSON: 16 hex digits each."""
        return [f"{number % 2**64:016x}" for number in self.example_id.tolist()]

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on `device`; the lineage stays where it is."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)


class Encoded(Protocol):
    """The rows of a window in flat arrays, from which batches are cut."""

    def batch(self, start: int, stop: int, too_long: int) -> Batch:
        """Return rows [start, stop) as a padded batch that shares no memory with the window."""
        ...


@dataclass(frozen=True)
class TensorForm:
    """How rows of a family become tensors.

    Attributes:
        columns: the family's columns that `encode` reads; only these are decoded, with the envelope's.
        tokens: an integer expression, the length of a row in tokens with its special tokens.
        encode: (rows with `columns`, `example_id` and lineage, in batch order; topic) -> what batches are cut from.
        max_tokens: the length above which rows are left out unless the feed says otherwise.
    """

    columns: tuple[str, ...]
    tokens: pl.Expr
    encode: Callable[[pl.DataFrame, str], Encoded]
    max_tokens: int
