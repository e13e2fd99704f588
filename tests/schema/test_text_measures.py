from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.shingles import shingles
from schema.text_measures import distinct_ngrams, nearest, pair_similarities, place_keys, similar_pairs

words = st.lists(st.sampled_from(["tea", "Rain", "no", "door", "7"]), max_size=12)
texts = st.lists(words.map(" ".join), min_size=1, max_size=8)


def word_runs(text: str, n: int) -> list[tuple[str, ...]]:
    split = text.lower().split()
    return [tuple(split[place : place + n]) for place in range(len(split) - n + 1)]


def shingle_set(text: str) -> set[tuple[str, ...]]:
    return set(word_runs(text, 3)) or {tuple(text.lower().split())}


def plain_nearest(rows: list[str]) -> list[float]:
    sets = [shingle_set(text) for text in rows]
    return [
        max((len(mine & other) / len(mine | other) for at, other in enumerate(sets) if at != place), default=0.0)
        for place, mine in enumerate(sets)
    ]


@given(texts, st.integers(3, 6))
def test_distinct_ngrams_equal_those_of_plain_python(rows: list[str], n: int) -> None:
    # A text of fewer than three words is one shingle.
    runs = [run for text in rows for run in (word_runs(text, n) or ([tuple(text.lower().split())] if n == 3 else []))]
    assert distinct_ngrams(pl.Series(rows), n) == (len(set(runs)) / len(runs) if runs else 0.0)


@given(texts)
def test_nearest_similarities_equal_those_of_plain_python(rows: list[str]) -> None:
    assert nearest(*shingles(pl.Series(rows))).tolist() == pytest.approx(plain_nearest(rows))


@given(st.lists(words.map(" ".join), max_size=20), st.sampled_from([0.1, 0.5, 1.0]))
def test_similar_pairs_equal_those_of_plain_python(rows: list[str], least: float) -> None:
    sets = [shingle_set(text) for text in rows]
    every = combinations(range(len(rows)), 2)
    expected = {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in every}
    pairs, similarities = similar_pairs(*shingles(pl.Series(rows, dtype=pl.String)), least)
    found = dict(zip(map(tuple, pairs.tolist()), similarities, strict=True))
    assert found == pytest.approx({pair: value for pair, value in expected.items() if value >= least})


@given(st.lists(st.tuples(words.map(" ".join), words.map(" ".join)), max_size=8))
def test_pair_similarities_equal_those_of_plain_python(pairs: list[tuple[str, str]]) -> None:
    first, second = (pl.Series([pair[side] for pair in pairs], dtype=pl.String) for side in (0, 1))
    sets = [(shingle_set(one), shingle_set(other)) for one, other in pairs]
    expected = [len(one & other) / len(one | other) for one, other in sets]
    assert pair_similarities(first, second).tolist() == pytest.approx(expected)


def test_copies_have_similarity_1_and_texts_without_a_common_run_0() -> None:
    assert nearest(*shingles(pl.Series(["one two three four"] * 5))).tolist() == [1] * 5
    assert nearest(*shingles(pl.Series(["one two three four", "five six seven eight"]))).tolist() == [0, 0]
    assert distinct_ngrams(pl.Series([], dtype=pl.String)) == 0


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_keys_of_a_set_are_the_keys_of_its_parts(first: int, second: int) -> None:
    parts = np.concatenate([place_keys(0, first), place_keys(first, second)])
    assert place_keys(0, first + second).tolist() == parts.tolist()
    assert len(set(parts.tolist())) == first + second


def test_runs_shorter_than_a_shingle_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter than a shingle of 3"):
        distinct_ngrams(pl.Series(["a b c"]), 2)
