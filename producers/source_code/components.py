"""Components of documents: near duplicates are joined, also if they are only joined through others.

1. The run sketches each document as it reads it (`sketch_documents`, 256 bytes a document). The texts are not kept.
2. `components_of` finds the pairs whose sketches agree, through 51 bands of five slots. A pair of Jaccard similarity
   0.7 shares a band with probability 0.9999, and one of 0.6 with probability 0.98.
3. A pair whose sketches agree in 3.3 standard deviations more slots than pairs at the threshold do is joined at once. A
   pair that agrees in 3.3 fewer is left. For a pair between, both texts are read again and their sets of shingles are
   compared exactly.
4. Joined documents are one component. `producers.source_code.grouping` gives it one group.

Memory is 256 bytes a document, 16 bytes for each pair to be compared exactly, and 32 MiB of shingles of texts that are
read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schema.compiled import compiled
from schema.minhash import expected_agreement, sketch_texts
from schema.shingles import Hashes, shingles
from schema.source_code import FAMILY
from schema.splitmix import GOLDEN

WORDS = FAMILY.shingle_words
# Below the 0.7 of near duplicates, because augmented copies can be more alike than their originals: without comments,
# 5 pairs of the standard library are in different splits at 0.7 and none at 0.65. At 0.6 the components of the standard
# library and of 23 crates are hardly larger. Splits must not depend on the setting `near_duplicate_threshold`.
THRESHOLD = 0.6
SLOTS = 256
_WIDTH = 5
_BANDS = SLOTS // _WIDTH
# Standard deviations of the estimate within which texts are compared exactly.
_UNSURE_DEVIATIONS = 3.3
# Many unlike documents can share a band, so each is compared with at most this many that come before it.
_LONGEST_WALK = 2_000
# Unsure pairs beyond this number are judged by their sketches. Near duplicates of 0.7 are joined in any case.
_MOST_CHECKED = 200_000
# Hashes of texts read again that are kept for the next pair: 32 MiB.
_CACHED_HASHES = 1 << 22

ReadText = Callable[[int], str | None]


def sketch_documents(texts: pl.Series) -> NDArray[np.uint8]:
    """Return the sketches (N, `SLOTS`) of texts (N,) String without nulls; concatenate them over a run."""
    return sketch_texts(texts, WORDS, SLOTS)[0]


def joined_components(
    components: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the components (N,) after the documents of each pair (left[i], right[i]) are joined.

    >>> joined_components(np.array([0, 0, 2, 3]), np.array([1]), np.array([3])).tolist()
    [0, 0, 2, 0]
    """
    parents = components.copy()
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        _join(parents, one, other)
    return _roots(parents)  # type: ignore[no-any-return]


def components_of(
    sketches: NDArray[np.uint8], read: ReadText, threshold: float = THRESHOLD
) -> tuple[NDArray[np.int64], int]:
    """Return the component of each document (N,), the smallest number in it, and how many pairs were read again.

    >>> texts = ["import this, that and the other one"] + ["def area(w, h): return w * h # of a box"] * 2
    >>> components_of(sketch_documents(pl.Series(texts)), texts.__getitem__)[0].tolist()
    [0, 1, 1]

    Which documents are in one component does not depend on their order.

    Args:
        sketches: (N, SLOTS) uint8, from `sketch_documents`.
        read: number of a document -> its text, or None if the text can no longer be read. A pair without a text is
            joined.
        threshold: the Jaccard similarity of the sets of 5-word shingles from which documents are joined.
    """
    # Equal documents are common in trees of packages; comparing each pair of them takes long.
    rows = np.ascontiguousarray(sketches).view(np.dtype((np.void, SLOTS))).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    parents = np.arange(len(first), dtype=np.int64)
    different = np.ascontiguousarray(sketches[first])
    unsure = _unsure_pairs(different, parents, threshold)
    checked = _join_by_texts(unsure, first, parents, read, threshold)
    roots = _roots(parents)[inverse.ravel()]
    smallest = np.full(len(first), len(rows), dtype=np.int64)
    np.minimum.at(smallest, roots, np.arange(len(rows)))
    return smallest[roots], checked


def _unsure_pairs(sketches: NDArray[np.uint8], parents: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Join the sure pairs in `parents` and return the pairs to be compared exactly (P, 2), in order."""
    mean = expected_agreement(threshold, SLOTS)
    margin = _UNSURE_DEVIATIONS * float(np.sqrt(mean * (1 - mean / SLOTS)))
    found = [np.empty((0, 2), dtype=np.int64)]
    total = 0
    for band in range(_BANDS):
        keys = _band_keys(sketches, band)
        order = np.argsort(keys, kind="stable")
        room = _MOST_CHECKED - total
        limits = (round(mean - margin), mean, mean + margin)
        pairs = _compare_bucket_mates(sketches, keys, order, band, parents, *limits, room)
        found.append(pairs)
        total += len(pairs)
    unsure = np.concatenate(found)
    return unsure[np.lexsort((unsure[:, 1], unsure[:, 0]))]


def _join_by_texts(
    pairs: NDArray[np.int64],
    documents: NDArray[np.int64],
    parents: NDArray[np.int64],
    read: ReadText,
    threshold: float,
) -> int:
    """Join the pairs whose texts are similar enough; return the number of pairs that were compared."""
    kept: OrderedDict[int, Hashes | None] = OrderedDict()
    held = checked = 0
    for left, right in pairs.tolist():
        if _root(parents, left) == _root(parents, right):
            continue
        for number in (left, right):
            if number in kept:
                kept.move_to_end(number)
                continue
            text = read(int(documents[number]))
            hashes = None if text is None else np.unique(shingles(pl.Series([text]), WORDS)[0])
            kept[number] = hashes
            held += 0 if hashes is None else len(hashes)
        one, other = kept[left], kept[right]
        checked += 1
        if one is None or other is None or jaccard(one, other) >= threshold:
            _join(parents, left, right)
        while held > _CACHED_HASHES and len(kept) > 2:
            _, dropped = kept.popitem(last=False)
            held -= 0 if dropped is None else len(dropped)
    return checked


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the Jaccard similarity of two sets of hashes, each sorted and without repeats; 1 for two empty sets."""
    shared = _shared(left, right)
    together = len(left) + len(right) - shared
    return shared / together if together else 1.0


@compiled
def _band_keys(sketches, band):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return a hash of one band of each sketch (FNV-1a over its slots, finished by Fibonacci hashing)."""
    keys = np.empty(sketches.shape[0], dtype=np.uint64)
    for row in range(keys.size):
        key = np.uint64(0xCBF29CE484222325)
        for slot in range(band * _WIDTH, (band + 1) * _WIDTH):
            key = (key ^ np.uint64(sketches[row, slot])) * np.uint64(0x100000001B3)
        keys[row] = (key ^ (key >> np.uint64(32))) * GOLDEN
    return keys


@compiled
def _compare_bucket_mates(  # type: ignore[no-untyped-def] # pragma: no cover
    sketches, keys, order, band, parents, least, likely, sure, room
):
    """Join the pairs of a bucket that agree in at least `sure` slots; return those that agree in at least `least`.

    Pairs that are already joined are left out. So are pairs that share an earlier band, because they were compared
    there. When `room` pairs are found, further ones are joined if they agree in at least `likely` slots.
    """
    found = np.empty((64, 2), dtype=np.int64)
    held = 0
    for place in range(1, order.size):
        row = order[place]
        for before in range(place - 1, max(place - 1 - _LONGEST_WALK, -1), -1):
            other = order[before]
            if keys[other] != keys[row]:
                break
            if _root(parents, row) == _root(parents, other) or _share_earlier(sketches, row, other, band):
                continue
            agreeing = _agreeing(sketches, row, other, least)
            if agreeing >= (sure if held < room else likely):
                _join(parents, row, other)
            elif agreeing >= least and held < room:
                if held == found.shape[0]:
                    grown = np.empty((2 * held, 2), dtype=np.int64)
                    grown[:held] = found
                    found = grown
                found[held, 0], found[held, 1] = min(row, other), max(row, other)
                held += 1
    return found[:held].copy()


@compiled
def _share_earlier(sketches, row, other, band):  # type: ignore[no-untyped-def] # pragma: no cover
    for earlier in range(band):
        same = True
        for slot in range(earlier * _WIDTH, (earlier + 1) * _WIDTH):
            if sketches[row, slot] != sketches[other, slot]:
                same = False
                break
        if same:
            return True
    return False


@compiled
def _agreeing(sketches, row, other, least):  # type: ignore[no-untyped-def] # pragma: no cover
    """Return the number of slots in which two sketches agree, or 0 as soon as `least` is out of reach."""
    slots = sketches.shape[1]
    agreeing = 0
    for begin in range(0, slots, 32):
        for slot in range(begin, begin + 32):
            agreeing += sketches[row, slot] == sketches[other, slot]
        if agreeing + slots - begin - 32 < least:
            return 0
    return agreeing


@compiled
def _root(parents, row):  # type: ignore[no-untyped-def] # pragma: no cover
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@compiled
def _join(parents, row, other):  # type: ignore[no-untyped-def] # pragma: no cover
    row, other = _root(parents, row), _root(parents, other)
    parents[max(row, other)] = min(row, other)


@compiled
def _roots(parents):  # type: ignore[no-untyped-def] # pragma: no cover
    roots = np.empty_like(parents)
    for row in range(parents.size):
        roots[row] = _root(parents, row)
    return roots


@compiled
def _shared(left, right):  # type: ignore[no-untyped-def] # pragma: no cover
    """Count the values that are in both of two sorted arrays."""
    shared = at = 0
    for value in left:
        while at < right.size and right[at] < value:
            at += 1
        if at < right.size and right[at] == value:
            shared += 1
    return shared
