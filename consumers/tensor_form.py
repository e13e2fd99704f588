"""A family's declaration of its tensors: the columns they need, a row's length in tokens, and the encoder.

Nothing here needs torch: the order of a feed is known without it, and only the tensors need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.form_options import FormIdentity, FormOptions
from schema.errors import UsageError
from schema.parts import load_part
from schema.registry import family_named

if TYPE_CHECKING:
    from consumers.batches import Batch, Stamp

Indices = npt.NDArray[np.int64]

# The number of a sequence within its row, from 0; in the rows of forms that expand.
PART = "part"


class Encoded(Protocol):
    """The rows of a window in flat arrays, from which batches are cut."""

    def batch(self, rows: Indices, stamp: Stamp) -> Batch:
        """Return the window's rows with these indices (B,) as a padded batch that shares no memory with the window.

        If `stamp.layout` is set, the batch is packed: the layout says where each of the rows, then (S,), is written.
        """
        ...


class Expansion(Protocol):
    """Turns each row into its training sequences, which the feed then counts, shuffles and batches as its rows.

    Loader workers receive a copy, so an expansion can be pickled.

    Attributes:
        columns: the family's columns that it reads; the sequences do not keep them.
        schema: the columns of a sequence that it makes, beside `PART`.
        beside: the family's columns that files of sequences have beside the sequences' own columns.
        token_bytes: bytes of a sequence's columns per token, at most.
        identity: what decides the sequences; a state of another identity is refused.
    """

    @property
    def columns(self) -> tuple[str, ...]: ...  # noqa: D102  # described above

    @property
    def schema(self) -> Mapping[str, pl.DataType]: ...  # noqa: D102

    @property
    def beside(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def token_bytes(self) -> int: ...  # noqa: D102

    @property
    def identity(self) -> FormIdentity: ...  # noqa: D102

    def sequences(self, rows: pl.DataFrame, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        """Yield the rows' sequences in order, in frames of limited size.

        The same row gives the same sequences in the same pass, whichever rows are beside it.

        Args:
            rows: rows with `columns` and `example_id`.
            seed: the feed's seed.
            epoch: the number of the pass.

        Yields:
            (index of each sequence's row, ascending (N,); N sequences with the columns `PART` (Int32) and `schema`).
        """
        ...


@dataclass(frozen=True)
class TensorForm:
    """How rows of a family become tensors.

    Attributes:
        columns: the family's columns that `encode` reads; only these are decoded, with the envelope's.
        tokens: an integer expression: the length of a row, or of a sequence, in tokens, special tokens included.
        encode: (rows with `columns`, `example_id` and lineage; names of the topics) -> the rows as flat arrays. If rows
            are expanded, it gets sequences, which also have `PART` and the expansion's `schema`.
        max_tokens: rows with more tokens are left out, unless the feed sets another limit.
        expand: turns rows into training sequences; None if a row is one.
        packs: whether `encode` can write several sequences into one row.
    """

    columns: tuple[str, ...]
    tokens: pl.Expr
    encode: Callable[[pl.DataFrame, tuple[str, ...]], Encoded]
    max_tokens: int
    expand: Expansion | None = None
    packs: bool = False

    @property
    def identity(self) -> FormIdentity | None:
        """What decides the sequences of a row; None if a row is one sequence."""
        return None if self.expand is None else self.expand.identity


def form_of(family: str, options: FormOptions | None = None) -> TensorForm:
    """Return the tensor form that the family of that name declares.

    Args:
        family: its name.
        options: for families that declare a function from options to a form.

    Raises:
        UnknownFamilyError: no family of that name is registered.
        UsageError: the form needs options, or takes none, or cannot be made from them.
    """
    declared = load_part(family_named(family), "tensor_form")
    if isinstance(declared, TensorForm):
        if options is not None:
            raise UsageError(f"the tensor form of family {family} has no options: leave `form` out")
        return declared
    if options is None:
        raise UsageError(
            f"the tensor form of family {family} needs a tokenizer: "
            "give `FeedOptions(form=FormOptions(tokenizer=FILE))`"
        )
    return cast(Callable[[FormOptions], TensorForm], declared)(options)
