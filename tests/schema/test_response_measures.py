"""The measures of responses see repeated sentences, repeated words, and beginnings that give the label away."""

from __future__ import annotations

import gzip
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.response_measures import beginning_accuracy, gzip_ratio, repeated_sentences, response_measures
from schema.text_measures import distinct_ngrams

NUMBERS = st.lists(st.integers(0, 5), max_size=30)


def sentence(number: int) -> str:
    return f"This is sentence number {'abcdef'[number]}."


@given(NUMBERS)
def test_repeated_sentences_are_those_that_occur_twice_in_all_texts(numbers: list[int]) -> None:
    counts = Counter(numbers)
    expected = sum(count for count in counts.values() if count > 1) / len(numbers) if numbers else 0
    # Cutting the sentences into texts in another way changes nothing.
    assert repeated_sentences([sentence(number) for number in numbers]) == pytest.approx(expected)
    assert repeated_sentences([" ".join(map(sentence, numbers))]) == pytest.approx(expected)


def test_short_sentences_case_and_punctuation_do_not_count() -> None:
    assert repeated_sentences(["Of course. I'll come over tonight.", "Of course. I'll go home tonight."]) == 0
    assert repeated_sentences(['"I\'ll come over tonight!" Yes.', "i'll come over tonight"]) == 1
    assert repeated_sentences(["I'll be there at 4.5 or so.", "I'll be there at 4.7 or so."]) == 0


def test_the_gzip_ratio_is_that_of_the_texts_as_lines() -> None:
    texts = ["I can come on Monday, but not before."] * 40
    data = "\n".join(texts).encode()
    assert gzip_ratio(texts) == len(data) / len(gzip.compress(data)) > 10
    assert gzip_ratio([]) == 0


def test_beginnings_give_a_label_away_if_only_that_label_has_their_words() -> None:
    texts, labels = ["Yes, gladly, I will be there."] * 100, ["excellent"] * 100
    texts, labels = texts + ["No, leave me alone with it."] * 60, labels + ["failed"] * 60
    accuracy, chance = beginning_accuracy(texts, labels)
    assert accuracy == 1
    assert 0.5 < chance < 0.75
    # Words after the first five do not matter.
    same = [f"One two three four five {label}" for label in labels]
    assert beginning_accuracy(same, labels) == (chance, chance)


def test_a_label_that_was_never_learned_is_never_right() -> None:
    texts = ["Alpha beta."] * 10
    assert beginning_accuracy(texts, [str(number) for number in range(10)]) == (0, 0)
    assert beginning_accuracy(["Alone."], ["a"]) == beginning_accuracy([], []) == (0, 0)


def test_all_measures_are_of_the_same_rows() -> None:
    texts = pl.Series([sentence(number % 6) for number in range(60)])
    labels = pl.Series(["a", "b", "c"] * 20)
    measured = response_measures(texts, labels)
    assert measured["rows"] == 60
    assert measured["repeated_sentences"] == 1
    assert measured["distinct_4grams"] == distinct_ngrams(texts, 4)
    assert measured["gzip_ratio"] == gzip_ratio(texts.to_list())
    accuracy = measured["beginning_accuracy"], measured["beginning_chance"]
    assert accuracy == beginning_accuracy(texts.to_list(), labels.to_list())
    assert response_measures(pl.Series([], dtype=pl.String), pl.Series([], dtype=pl.String))["gzip_ratio"] == 0
