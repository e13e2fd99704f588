"""Packing: which sequences of a window share a row, so that rows of a fixed length hold little padding.

Best fit (Johnson, Near-optimal bin packing algorithms, 1973): in the order of the window, each sequence goes to the row
with the least room that is still enough for it, or begins a new row. All rows of the window stay open, and a binary
tree over the amounts of room finds the row, so N sequences take O(N log T) steps for rows of T tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from consumers.sequence.planning import BatchShape, PlannedBatch, Seeds, first_order, plan
from consumers.tensor_form import Indices
from schema.compiled import compiled


def plan_packed(
    tokens: npt.NDArray[np.int64], row_tokens: int, shape: BatchShape, seeds: Seeds | None, order: Indices | None
) -> list[PlannedBatch]:
    """Return the batches of a window whose rows hold several sequences.

    Every sequence is in exactly one row, and every row in exactly one batch. Sequences are dropped only if the window
    has too few of them to give each batch `shape.least_rows` rows.

    Args:
        tokens: (N,) length of each sequence, at most `row_tokens`.
        row_tokens: the length of a row, T.
        shape: the limits of a batch; its rows count packed rows, and its tokens count rows times `row_tokens`.
        seeds: the seeds that shuffle the sequences, and then the rows; None keeps `order`.
        order: (N,) the order without seeds; None keeps the order of the window.
    """
    order = first_order(len(tokens), seeds, order)
    row = np.empty(len(order), dtype=np.int64)
    rows = _best_fit(tokens[order], row_tokens, row)
    rows = _spread(row, rows, _rows_wanted(rows, row_tokens, shape))
    # Sequences row after row; in a row they keep their order.
    members = order[np.argsort(row, kind="stable")]
    sizes = np.bincount(row, minlength=rows)
    begins = np.cumsum(sizes) - sizes
    # Best fit leaves the emptier rows at the end of the window, so shuffled rows are shuffled again.
    row_seeds = None if seeds is None else (*seeds, rows)
    batches = plan(np.full(rows, row_tokens, dtype=np.int64), replace(shape, bucket=False), row_seeds, None)
    return [_planned(tokens, members, begins[numbers], sizes[numbers]) for numbers in batches]


def _planned(tokens: npt.NDArray[np.int64], members: Indices, begins: Indices, sizes: Indices) -> PlannedBatch:
    """Return the batch of the rows that hold members[begin : begin + size] each."""
    ends = np.cumsum(sizes)
    places = np.arange(sizes.sum(), dtype=np.int64) + np.repeat(begins - (ends - sizes), sizes)
    sequences = members[places]
    return PlannedBatch(sequences, int(tokens[sequences].sum()), np.repeat(np.arange(len(sizes)), sizes))


def _rows_wanted(rows: int, row_tokens: int, shape: BatchShape) -> int:
    """Return how many rows give each batch its least rows, with as few batches as possible."""
    most = rows if shape.rows is None else shape.rows
    if shape.tokens is not None:
        most = min(most, shape.tokens // row_tokens)
    return shape.least_rows * -(-rows // max(most, 1))


def _spread(row: Indices, rows: int, wanted: int) -> int:
    """Move sequences of the fullest rows to rows of their own, in place, until there are `wanted` rows if possible.

    Args:
        row: (N,) the row of each sequence.
        rows: the number of rows.
        wanted: the number of rows to reach; it exceeds `rows` by less than `least_rows`.

    Returns:
        The number of rows now.
    """
    sizes = np.bincount(row, minlength=max(wanted, rows))
    while rows < wanted and sizes.max(initial=0) > 1:
        fullest = int(sizes.argmax())
        row[np.flatnonzero(row == fullest)[-1]] = rows
        sizes[fullest] -= 1
        sizes[rows] = 1
        rows += 1
    return rows


@compiled
def _best_fit(tokens: npt.NDArray[np.int64], row_tokens: int, row: Indices) -> int:
    """Write the row of each sequence into `row` (N,), and return the number of rows."""
    leaves = 1
    while leaves <= row_tokens:
        leaves *= 2
    # Leaf `leaves + room` is true if a row with that room is open, and an inner node if one of its leaves is.
    tree = np.zeros(2 * leaves, dtype=np.bool_)
    # The open rows of each amount of room, as a stack: the newest row, and below each row the next one.
    newest = np.full(row_tokens + 1, -1, dtype=np.int64)
    below = np.empty(len(tokens), dtype=np.int64)
    rows = 0
    for number in range(len(tokens)):
        node = leaves + tokens[number]
        if not tree[node]:
            # Climb until the tree has open rows further right, and go down to the leftmost of these.
            while node > 1 and (node % 2 == 1 or not tree[node + 1]):
                node //= 2
            if node > 1:
                node += 1
                while node < leaves:
                    node = 2 * node if tree[2 * node] else 2 * node + 1
        if node > 1:
            room = node - leaves
            chosen = newest[room]
            newest[room] = below[chosen]
            if newest[room] < 0:
                tree[node] = False
                while node > 1 and not tree[node ^ 1]:
                    node //= 2
                    tree[node] = False
        else:
            room, chosen = row_tokens, rows
            rows += 1
        row[number] = chosen
        room -= tokens[number]
        if room > 0:
            below[chosen] = newest[room]
            newest[room] = chosen
            node = leaves + room
            while node > 0 and not tree[node]:
                tree[node] = True
                node //= 2
    return rows
