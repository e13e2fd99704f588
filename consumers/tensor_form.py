"""A family's declaration of its tensors: the columns they need, a row's length in tokens, and the encoder.

Nothing here needs torch: the order of a feed is known without it, and only the tensors need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.parts import load_part
from schema.registry import family_named

if TYPE_CHECKING:
    from consumers.batches import Batch, Stamp

Indices = npt.NDArray[np.int64]


class Encoded(Protocol):
    """The rows of a window in flat arrays, from which batches are cut."""

    def batch(self, rows: Indices, stamp: Stamp) -> Batch:
        """Return the window's rows with these indices (B,) as a padded batch that shares no memory with the window."""
        ...


@dataclass(frozen=True)
class TensorForm:
    """How rows of a family become tensors.

    Attributes:
        columns: the family's columns that `encode` reads; only these are decoded, with the envelope's.
        tokens: an integer expression: the length of a row in tokens, special tokens included.
        encode: (rows with `columns`, `example_id` and lineage; names of the topics) -> the rows as flat arrays.
        max_tokens: rows with more tokens are left out, unless the feed sets another limit.
    """

    columns: tuple[str, ...]
    tokens: pl.Expr
    encode: Callable[[pl.DataFrame, tuple[str, ...]], Encoded]
    max_tokens: int


def form_of(family: str) -> TensorForm:
    """Return the tensor form that the family of that name declares.

    Raises:
        UnknownFamilyError: no family of that name is registered.
    """
    return cast(TensorForm, load_part(family_named(family), "tensor_form"))
