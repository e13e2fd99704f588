"""Turns Arrow tables into tensors with the feed's own compiled code; the encoder of the peers that read Parquet.

Each table is one window. The feed's planner shuffles, buckets and cuts it like a window of the feed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import torch

from bench.feed.tensors import Tensors
from consumers.feed_options import FeedOptions
from consumers.reduction.alphabet import SPECIAL_TOKENS
from consumers.reduction.tensors import pad_terms
from consumers.sequence.planning import BatchShape, plan
from schema.buffers import strings

# Rows in a window, as in the feed.
WINDOW_ROWS = FeedOptions().window_rows


def batches_of(tables: Iterable[pa.Table], batch_size: int, shuffle_seed: int | None) -> Iterator[Tensors]:
    """Yield the rows of each table, which has `COLUMNS`, in batches; with a seed they are shuffled and bucketed."""
    shape = BatchShape(batch_size, None, bucket=shuffle_seed is not None)
    for number, table in enumerate(tables):
        flat, offsets = strings(_one_array(table["term"]))
        numbers = np.empty((table.num_rows, 5), dtype=np.int64)
        for index, name in enumerate(("span_start", "span_end", "size", "depth")):
            numbers[:, index] = table[name].to_numpy()
        numbers[:, 4] = table["example_id"].to_numpy().view(np.int64)
        reducible = (numbers[:, :2] != 0).any(axis=1)
        numbers[:, :2] += reducible[:, None]
        seeds = None if shuffle_seed is None else (shuffle_seed, 0, number)
        for rows in plan(np.diff(offsets) + SPECIAL_TOKENS, shape, seeds, None):
            tokens, mask = pad_terms(flat, offsets, rows)
            picked = np.take(numbers, rows, axis=0)
            _, end, size, depth, ids = torch.from_numpy(np.ascontiguousarray(picked.T))
            span = torch.from_numpy(np.ascontiguousarray(picked[:, :2]))
            yield Tensors(torch.from_numpy(tokens), torch.from_numpy(mask), span, end == 0, size, depth, ids)


def _one_array(column: pa.ChunkedArray) -> pa.LargeStringArray:
    """Return a column of strings as one array with 64-bit offsets, copied only if it has several chunks."""
    chunks = [chunk.cast(pa.large_string()) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
