"""Near duplicates: against exact similarity, against two libraries, and against the formulas of the docstrings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st
from rensa import RMinHash

from schema.family import identify
from schema.reduction import FAMILY as REDUCTION
from schema.scenario import FAMILY
from schema.settings import load_settings
from schema.shingles import shingles, smallest
from streams.refine.near_duplicates import NearIndex
from streams.refine.sketch import SLOTS, banding, no_sketches, sketches
from streams.refine.state import State

NEAR, NEAR_OTHER_SPLIT = 2, 3
THRESHOLD = 0.8
# Words of a text in the tests that are about similarity: 98 shingles.
LENGTH = 100


def frame(texts: list[str], groups: list[str] | None = None, origins: list[int | None] | None = None) -> pl.DataFrame:
    """Rows with the columns of the near-duplicate index and of the gates; each text has its own id."""
    rows = pl.DataFrame(
        {
            "context": texts,
            "request": [""] * len(texts),
            "response": [""] * len(texts),
            "scenario_id": groups or [f"s{number}" for number in range(len(texts))],
            "augmented_from": pl.Series(origins or [None] * len(texts), dtype=pl.UInt64),
            "authenticity_target": ["failed"] * len(texts),
            "complexity_type": ["mixed_emotions"] * len(texts),
        },
    )
    # A frame without rows has no types.
    own = [name for name in rows.columns if name != "augmented_from"]
    return identify(rows.with_columns(pl.col(own).cast(pl.String)), FAMILY)


def refused_as_near(verdicts: np.ndarray) -> np.ndarray:
    return np.isin(verdicts, [NEAR, NEAR_OTHER_SPLIT])


def state(threshold: float = THRESHOLD, window: int | None = None) -> State:
    return State.empty(FAMILY, load_settings(near_duplicate_threshold=threshold, dedup_window_rows=window))


def pairs(count: int, replaced: int, seed: int) -> tuple[list[str], list[str], float]:
    """`count` pairs of texts that differ in the last `replaced` words, and the exact similarity of each pair."""
    draw = np.random.default_rng(seed)
    words = draw.integers(0, 10**9, size=(count, LENGTH + replaced)).astype(str)
    left = [" ".join(row[:LENGTH]) for row in words]
    right = [" ".join([*row[: LENGTH - replaced], *row[LENGTH:]]) for row in words]
    common = LENGTH - replaced - 2
    similarity = common / (2 * (LENGTH - 2) - common)
    assert exact(left[0], right[0]) == pytest.approx(similarity)
    return left, right, similarity


def exact(left: str, right: str) -> float:
    one, other = (set(shingles(pl.Series([text]))[0].tolist()) for text in (left, right))
    return len(one & other) / len(one | other)


def agreement(left: list[str], right: list[str]) -> np.ndarray:
    """The share of slots in which the sketches of each pair agree, without agreement by chance."""
    one, other = (sketches(frame(texts), FAMILY).slots for texts in (left, right))
    return ((one == other).mean(axis=1) - 1 / 256) / (1 - 1 / 256)


def of_datasketch(text: str) -> MinHash:
    made = MinHash(num_perm=SLOTS, hashfunc=lambda value: value)
    made.update_batch([int(value & np.uint64(0xFFFFFFFF)) for value in shingles(pl.Series([text]))[0]])
    return made


def of_rensa(text: str) -> RMinHash:
    made = RMinHash(num_perm=SLOTS, seed=1)
    made.update([str(value) for value in shingles(pl.Series([text]))[0]])
    return made


@pytest.mark.parametrize("library", [of_datasketch, of_rensa])
@pytest.mark.parametrize("replaced", [2, 5, 10, 25, 60])
def test_sketches_estimate_similarity_as_well_as_those_of_libraries(
    replaced: int, library: Callable[[str], Any]
) -> None:
    left, right, similarity = pairs(200, replaced, seed=replaced)
    ours = agreement(left, right)
    theirs = np.array([library(a).jaccard(library(b)) for a, b in zip(left, right, strict=True)])
    deviation = np.sqrt(similarity * (1 - similarity) / SLOTS)
    for estimates in (ours, theirs):
        assert abs(estimates.mean() - similarity) < 4 * deviation / np.sqrt(len(left))
    assert ours.std() < 1.25 * max(theirs.std(), deviation)


@pytest.mark.parametrize("replaced", [4, 7, 10, 13])
def test_pairs_are_refused_as_often_as_the_formulas_say(replaced: int) -> None:
    left, right, similarity = pairs(1_500, replaced, seed=100 + replaced)
    remembered = state()
    assert not remembered.admit(frame(left)).any()
    refused = refused_as_near(remembered.admit(frame(right))).mean()
    expected = chance_of_refusal(similarity)
    assert refused == pytest.approx(expected, abs=0.01 + 4 * np.sqrt(expected * (1 - expected) / len(left)))


def chance_of_refusal(similarity: float) -> float:
    """The probability that two texts of this similarity share a band and agree in enough slots, by drawing slots."""
    width, bands, least = banding(THRESHOLD)
    agree = np.random.default_rng(9).random((40_000, SLOTS)) < similarity + (1 - similarity) / 256
    in_bands = agree[:, : width * bands].reshape(-1, bands, width).all(axis=2).any(axis=1)
    assert in_bands.mean() == pytest.approx(1 - (1 - similarity**width) ** bands, abs=0.02)
    return float((in_bands & (agree.sum(axis=1) >= least)).mean())


@pytest.mark.parametrize("partitions", [1, 4, 16])
@pytest.mark.parametrize("replaced", [3, 10, 40])
def test_near_duplicates_meet_in_a_partition_as_often_as_routing_promises(partitions: int, replaced: int) -> None:
    left, right, similarity = pairs(3_000, replaced, seed=200 + replaced)
    one, other = (smallest(pl.Series(texts)).to_numpy() % np.uint64(partitions) for texts in (left, right))
    expected = similarity + (1 - similarity) / partitions
    margin = 4 * np.sqrt(expected * (1 - expected) / len(left))
    assert (one == other).mean() == pytest.approx(expected, abs=max(margin, 1e-9))


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_let_nine_of_ten_pairs_at_the_threshold_meet(threshold: float) -> None:
    width, bands, least = banding(threshold)
    assert width * bands <= SLOTS
    assert 1 - (1 - threshold**width) ** bands >= 0.9
    assert threshold <= least / SLOTS < threshold + 0.02


# Twelve texts, some of them near to others: a few words of a long text are changed.
VARIANTS = [
    " ".join(f"{'changed' if place in {7 * change, 50} and change else base}{place}" for place in range(LENGTH))
    for base in ("river", "stone", "cloud")
    for change in range(4)
]
SPLIT = {"s0": "train", "s1": "train", "s8": "val", "s39": "val", "s2": "test", "s45": "test"}
arrivals = st.lists(
    st.tuples(st.sampled_from(range(len(VARIANTS))), st.sampled_from(sorted(SPLIT)), st.booleans()), max_size=25
)


@given(arrivals, st.lists(st.integers(1, 9), max_size=5))
def test_verdicts_follow_the_order_of_arrival_and_not_the_groups(
    arrived: list[tuple[int, str, bool]], sizes: list[int]
) -> None:
    rows = frame(
        [VARIANTS[text] for text, _, _ in arrived],
        [group for _, group, _ in arrived],
        [77 if copied else None for _, _, copied in arrived],
    )
    expected = []
    kept: list[tuple[int, str]] = []
    for text, group, copied in arrived:
        near = [
            NEAR if SPLIT[other_group] == SPLIT[group] else NEAR_OTHER_SPLIT
            for other, other_group in kept
            if other // 4 == text // 4 and not (copied and other_group == group)
        ]
        same = any(other == text for other, _ in kept)
        expected.append(1 if same else max(near, default=0))
        if not expected[-1]:
            kept.append((text, group))
    remembered = state(threshold=0.7)
    verdicts: list[int] = []
    for size in sizes:
        verdicts += remembered.admit(rows.slice(len(verdicts), size)).tolist()
    verdicts += remembered.admit(rows.slice(len(verdicts))).tolist()
    assert verdicts == expected


def test_an_augmented_row_may_be_near_rows_of_its_own_group() -> None:
    rows = frame(
        [VARIANTS[0], VARIANTS[1], VARIANTS[2], VARIANTS[0]],
        ["s0", "s0", "s1", "s0"],
        [None, 77, 77, 77],
    )
    # The last has exactly the words of the first: the same `group` allows a near duplicate, not an equal text.
    assert state(threshold=0.7).admit(rows).tolist() == [0, 0, NEAR, 1]


def test_the_groups_of_these_tests_are_in_the_splits_they_name() -> None:
    rows = frame([f"text {name}" for name in SPLIT], list(SPLIT))
    assert dict(rows.select("scenario_id", "split").rows()) == SPLIT


@pytest.mark.parametrize("window", [None, 2])
def test_a_near_duplicate_of_another_split_is_refused_as_that(window: int | None) -> None:
    remembered = state(threshold=0.7, window=window)
    # With the window, these are in `old` when the others arrive.
    remembered.near.remember(frame([VARIANTS[0], VARIANTS[4]], ["s2", "s0"]))
    arriving = frame([VARIANTS[1], VARIANTS[2]], ["s0", "s45"])
    assert remembered.admit(arriving).tolist() == [NEAR_OTHER_SPLIT, NEAR]
    arriving = frame([VARIANTS[5], VARIANTS[6]], ["s1", "s39"])
    assert remembered.admit(arriving).tolist() == [NEAR, NEAR_OTHER_SPLIT]
    assert remembered.reasons[NEAR - 1 : NEAR_OTHER_SPLIT] == ("near_duplicate", "near_duplicate_other_split")


def test_a_near_text_of_another_split_decides_over_one_of_the_same_split() -> None:
    for order in (["s0", "s2"], ["s2", "s0"]):
        remembered = state(threshold=0.7)
        remembered.near.remember(frame(VARIANTS[:2], order))
        assert remembered.admit(frame([VARIANTS[2]], ["s1"])).tolist() == [NEAR_OTHER_SPLIT]


def test_the_family_gives_the_threshold_unless_the_setting_does() -> None:
    assert State.empty(FAMILY, load_settings()).near.banding == banding(0.8)
    own = replace(FAMILY, near_duplicate_threshold=0.7)
    assert State.empty(own, load_settings()).near.banding == banding(0.7)
    assert State.empty(own, load_settings(near_duplicate_threshold=0.9)).near.banding == banding(0.9)


def test_texts_are_compared_by_runs_of_the_familys_width() -> None:
    # Every third word differs: no run of three words is shared, but single words are.
    one, other = (" ".join(f"{end if at % 3 == 0 else ''}w{at}" for at in range(LENGTH)) for end in ("a", "b"))
    for width, expected in ((3, 0), (1, NEAR)):
        rows = frame([one, other], ["s0", "s1"])
        settings = load_settings(near_duplicate_threshold=0.4)
        assert State.empty(replace(FAMILY, shingle_words=width), settings).admit(rows).tolist() == [0, expected]


def test_a_threshold_of_one_admits_everything() -> None:
    assert not state(threshold=1.0).admit(frame(VARIANTS)).any()


def test_a_family_without_text_remembers_no_sketches() -> None:
    index = NearIndex(REDUCTION, THRESHOLD)
    assert not index.is_on
    assert not index.sketches(pl.DataFrame({"term": ["0"]})).worded.any()
    with pytest.raises(ValueError, match="reduction have no text"):
        sketches(pl.DataFrame({"term": ["0"]}), REDUCTION)
    assert no_sketches(3).slots.shape == (3, SLOTS)


def test_rows_without_text_are_near_no_other() -> None:
    empty = frame(VARIANTS[:3]).with_columns(context=pl.lit(None, dtype=pl.String), example_id=pl.Series([1, 2, 3]))
    assert not state().admit(empty.cast({"example_id": pl.UInt64})).any()


def test_sketches_are_found_after_the_table_has_grown() -> None:
    left, right, _ = pairs(5_000, 2, seed=3)
    remembered = state()
    remembered.near.remember(frame(left[:1_000]))
    groups = [f"s{number}" for number in range(5_000)]
    assert not remembered.admit(frame(left[1_000:], groups[1_000:])).any()
    assert len(remembered.near) == len(left)
    # Each is near to a text of its own split.
    assert (remembered.admit(frame(right)) == NEAR).mean() > 0.999


def test_a_window_bounds_the_index_and_keeps_its_latest() -> None:
    left, right, _ = pairs(600, 2, seed=4)
    remembered = state(window=100)
    for start in range(0, 600, 50):
        assert not remembered.admit(frame(left[start : start + 50])).any()
        assert len(remembered.near) <= 200
    assert refused_as_near(remembered.admit(frame(right[500:]))).mean() > 0.98
    rebuilt = NearIndex(FAMILY, THRESHOLD, 100)
    rebuilt.remember(frame(left))
    assert 100 <= len(rebuilt) <= 200


def test_lookup_time_is_bounded_for_many_similar_texts() -> None:
    draw = np.random.default_rng(5)
    # Two thirds of each text are the same words: every row shares bands with thousands of others.
    shared = " ".join(f"same{place}" for place in range(66))
    texts = [f"{shared} {' '.join(row)}" for row in draw.integers(0, 10**9, size=(6_000, 34)).astype(str)]
    assert not state().admit(frame(texts)).any()
