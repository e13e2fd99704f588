"""The tensor batch that all families share: mask, example ids, where its rows were read, and the feed's cursor."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from consumers.packed_rows import RowLayout
from consumers.sequence.cursor import Cursor
from consumers.sequence.lineage import OFFSET, PARTITION, ROW, SOURCE

# The columns of a window from which a batch says which rows it holds; `shared_fields` takes them in this order.
ORIGIN = ("example_id", SOURCE, PARTITION, OFFSET, ROW)


@dataclass(frozen=True, eq=False)
class Position:
    """Where the sequences of a batch were read; S of them, one for each row unless the batch is packed.

    Attributes:
        topics: the feed's topics.
        source: (S,) int64, the index in `topics`.
        partition: (S,) int64.
        offset: (S,) int64, of the record.
        row: (S,) int64, the row within the record, from 0.
    """

    topics: tuple[str, ...]
    source: torch.Tensor
    partition: torch.Tensor
    offset: torch.Tensor
    row: torch.Tensor

    def of_row(self, index: int) -> tuple[str, int, int, int]:
        """Return (topic, partition, offset, row in the record) of one sequence of the batch."""
        topic = self.topics[int(self.source[index])]
        return topic, int(self.partition[index]), int(self.offset[index]), int(self.row[index])


@dataclass(frozen=True, slots=True)
class Stamp:
    """Facts about a batch that its rows do not contain; see `Batch`. `layout` is that of a packed batch."""

    cursor: Cursor
    global_rows: int
    global_tokens: int
    too_long: int
    layout: RowLayout | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """A padded micro-batch; B rows, T tokens, S sequences.

    A sequence is one row of the topic, or a part of it. Each has a row of its own (S equals B), unless the feed packs
    sequences (`FeedOptions.pack_tokens`). In a packed batch the fields of a family are (S,) if they are not per token.

    Attributes:
        attention_mask: (B, T) bool, true on real tokens.
        example_id: (S,) int64, the bits of the uint64 id (torch cannot pickle uint64 tensors); `hex_ids` prints them.
        position: where each sequence was read.
        cursor: the feed's cursor after this batch.
        global_rows: rows of the global batch, of which this is one rank's share; equals B with one rank.
        global_tokens: real tokens of the global batch, without padding; equals `real_tokens` with one rank.
        too_long: rows that this pass has left out so far, because they have more tokens than the feed's `max_tokens`.
        segment_ids: (B, T) int64, the number of a token's sequence in its row, from 1; 0 is padding. None unless the
            batch is packed, as the fields below.
        position_ids: (B, T) int64, the place of a token in its sequence, from 0; 0 in padding.
        sequence_row: (S,) int64, the row that holds each sequence, ascending.
        sequence_start: (S,) int64, the place in the row of the sequence's first token.
    """

    attention_mask: torch.Tensor
    example_id: torch.Tensor
    position: Position
    cursor: Cursor
    global_rows: int
    global_tokens: int
    too_long: int
    segment_ids: torch.Tensor | None = None
    position_ids: torch.Tensor | None = None
    sequence_row: torch.Tensor | None = None
    sequence_start: torch.Tensor | None = None

    def __len__(self) -> int:
        return int(self.attention_mask.shape[0])

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
        origin: the columns `ORIGIN` of the batch's sequences, each (S,) int64.
        topics: the feed's topics.
        stamp: what the rows do not contain.
    """
    example_id, *lineage = origin
    packed = {} if stamp.layout is None else stamp.layout.fields()
    return {
        "attention_mask": torch.from_numpy(mask),
        "example_id": example_id,
        "position": Position(topics, *lineage),
        "cursor": stamp.cursor,
        "global_rows": stamp.global_rows,
        "global_tokens": stamp.global_tokens,
        "too_long": stamp.too_long,
        **packed,
    }
