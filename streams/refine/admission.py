"""Compiled verdicts on a group's rows: each row is compared with the clean rows before it.

A refused row does not change the state, so a later equal row is judged as if the refused one had never arrived. So
verdicts do not depend on how the records are cut into groups, and refused rows can be sent again.

Near duplicates are looked up in a chained hash table. Each band of each remembered sketch is a node, in the bucket that
its slots hash to, newest first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schema.compiled import compiled
from schema.splitmix import GOLDEN

# Verdicts; the refusal of gate g is FIRST_GATE + g.
ADMITTED, DUPLICATE, NEAR_DUPLICATE, NEAR_DUPLICATE_OTHER_SPLIT, FIRST_GATE = range(5)
# How a gate counts a row: its axis does not count the row, counts it outside the gate's bins, or inside them.
UNCOUNTED, OUTSIDE, INSIDE = range(3)
# Similar texts below the threshold can fill a bucket, so a lookup is limited to this many nodes.
_LONGEST_WALK = 256
# Slots compared at once; the number of slots is a multiple of it.
_STRIDE = 32


class Table(NamedTuple):
    """A hash table of at most R remembered sketches, with S slots and B bands each.

    Attributes:
        slots: (R, S) uint8.
        groups: (R,) uint64, the hash of the family's `group` of each row.
        splits: (R,) uint8, the place of each row's split in `schema.family.SPLITS`.
        links: (R * B,) uint32; the next node in the bucket of node row * B + band, plus 1; 0 at the end.
        heads: (H,) uint32, H a power of two; the newest node of each bucket, plus 1; 0 if the bucket is empty.
    """

    slots: NDArray[np.uint8]
    groups: NDArray[np.uint64]
    splits: NDArray[np.uint8]
    links: NDArray[np.uint32]
    heads: NDArray[np.uint32]


class GateCounts(NamedTuple):
    """The counters of G gates, each (G,) int64; the target of gate g is numerators[g] / denominators[g]."""

    inside: NDArray[np.int64]
    total: NDArray[np.int64]
    numerators: NDArray[np.int64]
    denominators: NDArray[np.int64]


@compiled
def judge_in_order(  # type: ignore[no-untyped-def] # pragma: no cover
    ids, taken, sketches, young, held, old, banding, codes, shares, from_rows
):
    """Return the verdict on each of N rows (N,) int8, and how many sketches `young` holds afterwards.

    Args:
        ids: (N,) int64, the index of each row's id among the C different ids of these rows.
        taken: (C,) bool, whether an id is in clean; updated.
        sketches: `Sketches` of the rows.
        young, old: `Table`s; `young` holds `held` rows and has room for N more; updated.
        banding: `Banding`.
        codes: (N, G) int8, of `UNCOUNTED`, `OUTSIDE` and `INSIDE`.
        shares: `GateCounts`; updated.
        from_rows: fewer clean rows than this count as this many.
    """
    verdicts = np.empty(ids.size, dtype=np.int8)
    keys = np.empty(banding.bands, dtype=np.uint64)
    for row in range(ids.size):
        if taken[ids[row]]:
            verdicts[row] = DUPLICATE
            continue
        worded = sketches.worded[row]
        if worded:
            _band_keys(sketches.slots, row, banding, keys)
            near = _nearness(young, keys, sketches, row, banding)
            if near != NEAR_DUPLICATE_OTHER_SPLIT:
                near = max(near, _nearness(old, keys, sketches, row, banding))
            if near != ADMITTED:
                verdicts[row] = near
                continue
        refusing = _refusing_gate(codes, row, shares, from_rows)
        if refusing >= 0:
            verdicts[row] = FIRST_GATE + refusing
            continue
        verdicts[row] = ADMITTED
        taken[ids[row]] = True
        for gate in range(codes.shape[1]):
            shares.total[gate] += codes[row, gate] != UNCOUNTED
            shares.inside[gate] += codes[row, gate] == INSIDE
        if worded:
            young.slots[held] = sketches.slots[row]
            young.groups[held] = sketches.groups[row]
            young.splits[held] = sketches.splits[row]
            _link_row(young, held, keys)
            held += 1
    return verdicts, held


@compiled
def link_rows(table, begin, end, banding):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put the sketches of rows begin <= row < end of `table` into their buckets."""
    keys = np.empty(banding.bands, dtype=np.uint64)
    for row in range(begin, end):
        _band_keys(table.slots, row, banding, keys)
        _link_row(table, row, keys)


@compiled
def _refusing_gate(codes, row, shares, from_rows):  # type: ignore[no-untyped-def] # pragma: no cover
    """The first gate that refuses the row, or -1."""
    for gate in range(codes.shape[1]):
        if codes[row, gate] != INSIDE:
            continue
        total = max(shares.total[gate] + 1, from_rows)
        if (shares.inside[gate] + 1) * shares.denominators[gate] > shares.numerators[gate] * total:
            return gate
    return -1


@compiled
def _band_keys(slots, row, banding, keys):  # type: ignore[no-untyped-def] # pragma: no cover
    """Set keys[b] to the hash of band b (FNV-1a over its slots, finished by Fibonacci hashing)."""
    for band in range(banding.bands):
        key = np.uint64(0xCBF29CE484222325) + np.uint64(band)
        for slot in range(band * banding.width, (band + 1) * banding.width):
            key = (key ^ np.uint64(slots[row, slot])) * np.uint64(0x100000001B3)
        keys[band] = (key ^ (key >> np.uint64(32))) * GOLDEN


@compiled
def _bucket(table, key):  # type: ignore[no-untyped-def] # pragma: no cover
    return np.int64((key >> np.uint64(24)) & np.uint64(table.heads.size - 1))


@compiled
def _link_row(table, row, keys):  # type: ignore[no-untyped-def] # pragma: no cover
    for band in range(keys.size):
        bucket = _bucket(table, keys[band])
        node = row * keys.size + band
        table.links[node] = table.heads[bucket]
        table.heads[bucket] = np.uint32(node + 1)


@compiled
def _nearness(table, keys, sketches, row, banding):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the verdict by the remembered texts that are as similar as the threshold: `ADMITTED` if there are none.

    A near text of another split decides over those of the row's own split. A copy ignores texts of its own `group`.
    """
    most_apart = sketches.slots.shape[1] - banding.least
    verdict = ADMITTED
    for band in range(keys.size):
        node = np.int64(table.heads[_bucket(table, keys[band])])
        walked = 0
        while node > 0 and walked < _LONGEST_WALK:
            other = (node - 1) // keys.size
            same_split = table.splits[other] == sketches.splits[row]
            own = sketches.copied[row] and table.groups[other] == sketches.groups[row]
            # A row that is refused already is compared only with texts of other splits.
            settled = own or (same_split and verdict != ADMITTED)
            if not settled and _agree(table.slots, other, sketches.slots, row, most_apart):
                if not same_split:
                    return NEAR_DUPLICATE_OTHER_SPLIT
                verdict = NEAR_DUPLICATE
            node = np.int64(table.links[node - 1])
            walked += 1
    return verdict


@compiled
def _agree(left, at, right, row, most_apart):  # type: ignore[no-untyped-def] # pragma: no cover
    """Whether two sketches differ in at most `most_apart` slots; stops as soon as they differ in more."""
    apart = 0
    for begin in range(0, left.shape[1], _STRIDE):
        for slot in range(begin, begin + _STRIDE):
            apart += left[at, slot] != right[row, slot]
        if apart > most_apart:
            return False
    return True
