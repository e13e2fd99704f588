"""A tensor form that cuts the terms of reductions into overlapping windows of bytes, for the tests of expansions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from consumers.batches import ORIGIN, Batch, Stamp, shared_fields
from consumers.form_options import FormIdentity, FormOptions
from consumers.tensor_form import PART, Indices, TensorForm

Sequence = tuple[int, int, list[int]]


@dataclass(frozen=True, eq=False, kw_only=True)
class CutBatch(Batch):
    tokens: torch.Tensor
    part: torch.Tensor

    @property
    def sequences(self) -> list[Sequence]:
        """(example id, part, tokens) of each row."""
        return [
            (number % 2**64, part, row[mask].tolist())
            for number, part, row, mask in zip(
                self.example_id.tolist(), self.part.tolist(), self.tokens, self.attention_mask, strict=True
            )
        ]


class EncodedCuts:
    def __init__(self, rows: pl.DataFrame, topics: tuple[str, ...]) -> None:
        self._rows, self._topics = rows, topics

    def batch(self, rows: Indices, stamp: Stamp) -> CutBatch:
        chosen = self._rows[rows]
        tokens = [torch.tensor(row, dtype=torch.int64) for row in chosen["input_ids"].to_list()]
        padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=-1)
        origin = [torch.from_numpy(chosen[name].to_numpy().astype(np.int64)) for name in ORIGIN]
        fields: dict[str, Any] = shared_fields((padded >= 0).numpy(), origin, self._topics, stamp)
        return CutBatch(tokens=padded, part=torch.from_numpy(chosen[PART].to_numpy().copy()), **fields)


def cuts(term: str, identity: FormIdentity) -> list[list[int]]:
    data = list(term.encode())
    last = max(len(data) - identity.window + identity.stride - 1, 0) // identity.stride
    return [data[number * identity.stride :][: identity.window] for number in range(last + 1)]


@dataclass(frozen=True)
class Cuts:
    identity: FormIdentity
    columns: tuple[str, ...] = ("term",)
    beside: tuple[str, ...] = ("trace_id", "example_id")
    token_bytes: int = 4

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        return {"input_ids": pl.List(pl.Int32())}

    def sequences(self, rows: pl.DataFrame, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        for parent, term in enumerate(rows["term"]):
            made = cuts(term, self.identity)
            frame = pl.DataFrame({PART: range(len(made)), "input_ids": made}, schema={PART: pl.Int32(), **self.schema})
            yield np.full(len(made), parent), frame


def form(options: FormOptions) -> TensorForm:
    identity = FormIdentity(
        version=1,
        tokenizer=f"{options.tokenizer}".removeprefix("moved/"),
        window=options.window,
        stride=options.stride,
        found_at=str(options.tokenizer),
    )
    tokens = pl.col("input_ids").list.len().cast(pl.Int64)
    return TensorForm((), tokens, EncodedCuts, options.window, Cuts(identity))
