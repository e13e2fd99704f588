"""The dedup index of one partition: the example ids that are already in clean.

An open-addressing hash set of uint64 in flat numpy arrays, probed by compiled code. It takes 13 to 27 bytes an id,
because the table doubles when it is 0.6 full. A window is kept as two generations. When the younger one holds `window`
ids, the older one is dropped. So the index remembers the latest ids, between `window` and twice as many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schema.compiled import compiled
from schema.splitmix import GOLDEN

# 0 marks a free slot; an id of 0 is kept in a flag of its own.
_FREE = np.uint64(0)
_START_SLOTS = 1 << 16
# Linear probing slows down steeply above two thirds full.
_MAX_LOAD = 0.6


@compiled
def _slot_of(slots, key):  # type: ignore[no-untyped-def] # pragma: no cover
    """The slot that holds `key`, or the free one where it belongs (Fibonacci hashing, linear probing)."""
    mask = np.uint64(slots.size - 1)
    slot = (key * GOLDEN) >> np.uint64(20) & mask
    while slots[slot] != _FREE and slots[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _insert_all(slots, keys):  # type: ignore[no-untyped-def] # pragma: no cover
    for key in keys:
        if key != _FREE:
            slots[_slot_of(slots, key)] = key


@compiled
def _mark_new(young, old, keys, fresh):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set fresh[i] and insert keys[i] into `young` if keys[i] is in neither table and not earlier in `keys`."""
    added = 0
    for i in range(keys.size):
        key = keys[i]
        if key == _FREE:
            continue
        slot = _slot_of(young, key)
        if young[slot] == key:
            continue
        if old[_slot_of(old, key)] == key:
            continue
        young[slot] = key
        fresh[i] = True
        added += 1
    return added


@compiled
def _mark_held(young, old, keys, held):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set held[i] if keys[i] is in one of the tables."""
    for i in range(keys.size):
        key = keys[i]
        if key != _FREE:
            held[i] = young[_slot_of(young, key)] == key or old[_slot_of(old, key)] == key


class DedupIndex:
    """Remembers example ids in arrival order.

    Args:
        window: the least number of ids to remember; None remembers all.
    """

    def __init__(self, window: int | None = None) -> None:
        self._window = window
        self._young = np.zeros(_START_SLOTS, dtype=np.uint64)
        self._old = np.zeros(16, dtype=np.uint64)
        self._young_count = 0
        self._old_count = 0
        self._has_zero = False

    def __len__(self) -> int:
        return self._young_count + self._old_count + self._has_zero

    def admit(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Remember `ids`; return a mask of them: True for the first appearance of an id that was not remembered."""
        fresh = np.zeros(ids.size, dtype=np.bool_)
        # Generations change between pieces, so a piece is no larger than the window.
        step = ids.size if self._window is None else self._window
        for start in range(0, ids.size, max(step, 1)):
            piece = slice(start, start + step)
            self._make_room(ids[piece].size)
            self._young_count += _mark_new(self._young, self._old, ids[piece], fresh[piece])
        zeros = np.flatnonzero(ids == _FREE)
        if zeros.size and not self._has_zero:
            fresh[zeros[0]] = True
            self._has_zero = True
        return fresh

    def holds(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return a mask of `ids`: True for each id that is remembered."""
        mask = np.zeros(ids.size, dtype=np.bool_)
        _mark_held(self._young, self._old, ids, mask)
        mask[ids == _FREE] = self._has_zero
        return mask

    def _make_room(self, coming: int) -> None:
        if self._window is not None and self._young_count >= self._window:
            self._old, self._old_count = self._young, self._young_count
            self._young = np.zeros(_START_SLOTS, dtype=np.uint64)
            self._young_count = 0
        needed = (self._young_count + coming) / _MAX_LOAD
        if needed > self._young.size:
            grown = np.zeros(1 << int(np.ceil(np.log2(needed))), dtype=np.uint64)
            _insert_all(grown, self._young)
            self._young = grown
