"""SplitMix64: the published numbers, and the same results from arrays and compiled code."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schema.splitmix import mix, mix_word, nth

WORDS = st.integers(0, 2**64 - 1)
# The first outputs of Vigna's splitmix64.c for the seed 1234567.
PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]


def plain_mix(word: int) -> int:
    """Return the finalizer in Python's integers."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
    return word ^ word >> 31


def test_the_numbers_of_a_seed_are_the_published_ones() -> None:
    assert nth(np.array([1234567], dtype=np.uint64), np.arange(1, 6)).tolist() == PUBLISHED


@given(WORDS)
def test_arrays_and_compiled_code_mix_alike(word: int) -> None:
    assert mix(np.array([word], dtype=np.uint64)).tolist() == [plain_mix(word)]
    assert int(mix_word(np.uint64(word))) == plain_mix(word)


@given(st.lists(WORDS, min_size=1, max_size=5), st.integers(0, 2**63 - 1))
def test_one_number_for_all_seeds_is_that_number_of_each(seeds: list[int], number: int) -> None:
    expected = [plain_mix((seed + number * 0x9E3779B97F4A7C15) % 2**64) for seed in seeds]
    assert nth(np.array(seeds, dtype=np.uint64), number).tolist() == expected
