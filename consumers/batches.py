"""The tensor batch that all families share: mask, example ids, where its rows were read, and the feed's cursor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import OFFSET, PARTITION, ROW, SOURCE

# The columns of a window from which a batch says which rows it holds; `shared_fields` takes them in this order.
ORIGIN = ("example_id", SOURCE, PARTITION, OFFSET, ROW)


@dataclass(frozen=True, eq=False)
class Position:
    """Where the rows of a batch were read.

    Attributes:
        topics: the feed's topics.
        source: (B,) int64, the index in `topics`.
        partition: (B,) int64.
        offset: (B,) int64, of the record.
        row: (B,) int64, the row within the record, from 0.
    """

    topics: tuple[str, ...]
    source: torch.Tensor
    partition: torch.Tensor
    offset: torch.Tensor
    row: torch.Tensor

    def of_row(self, index: int) -> tuple[str, int, int, int]:
        """Return (topic, partition, offset, row in the record) of one row of the batch."""
        topic = self.topics[int(self.source[index])]
        return topic, int(self.partition[index]), int(self.offset[index]), int(self.row[index])


@dataclass(frozen=True, slots=True)
class Stamp:
    """Facts about a batch that its rows do not contain; see `Batch`."""

    cursor: Cursor
    global_rows: int
    too_long: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A padded micro-batch; B rows, T tokens.

    Attributes:
        attention_mask: (B, T) bool, true on real tokens.
        example_id: (B,) int64, the bits of the uint64 id (torch cannot pickle uint64 tensors); `hex_ids` prints them.
        position: where each row was read.
        cursor: the feed's cursor after this batch.
        global_rows: rows of the global batch, of which this is one rank's share; equals B with one rank.
        too_long: rows that this pass has left out so far, because they have more tokens than the feed's `max_tokens`.
    """

    attention_mask: torch.Tensor
    example_id: torch.Tensor
    position: Position
    cursor: Cursor
    global_rows: int
    too_long: int

    def __len__(self) -> int:
        return int(self.example_id.shape[0])

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding."""
        return int(self.attention_mask.sum())

    @property
    def padding_share(self) -> float:
        """Padding as a share of all B x T tokens; 0 for an empty batch."""
        return 1 - self.real_tokens / self.attention_mask.numel() if len(self) else 0.0

    @property
    def hex_ids(self) -> list[str]:
        """The example ids as in JSON: 16 hex digits each."""
        return [f"{number % 2**64:016x}" for number in self.example_id.tolist()]

    def to(self, device: torch.device | str) -> Self:
        """Return the batch with its tensors on `device`; `position` stays where it is."""
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **moved)


def shared_fields(
    mask: npt.NDArray[np.bool_], origin: Sequence[torch.Tensor], topics: tuple[str, ...], stamp: Stamp
) -> dict[str, Any]:
    """Return the fields of `Batch`, for a family's batch with fields of its own.

    Args:
        mask: (B, T), true on real tokens.
        origin: the columns `ORIGIN` of the batch's rows, each (B,) int64.
        topics: the feed's topics.
        stamp: what the rows do not contain.
    """
    example_id, *lineage = origin
    return {
        "attention_mask": torch.from_numpy(mask),
        "example_id": example_id,
        "position": Position(topics, *lineage),
        "cursor": stamp.cursor,
        "global_rows": stamp.global_rows,
        "too_long": stamp.too_long,
    }
