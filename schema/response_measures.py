"""Measures of the responses of a set of rows: how often their sentences, runs of words and beginnings repeat.

All of them are figures of a sample of at most `schema.text_measures.SAMPLE_ROWS` rows, because repetition grows with
the number of rows. `HUMAN` has the same figures of as many responses that people wrote.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np
import polars as pl

from schema.text_measures import distinct_ngrams, place_keys

# Shorter sentences, such as "Of course.", recur in anybody's speech.
SENTENCE_WORDS = 4
GRAM_WORDS = 4
BEGINNING_WORDS = 5
# Of 2,000 responses that people wrote; the other measures are not known for people.
HUMAN = {"repeated_sentences": 0.033, "gzip_ratio": 2.6}

_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\W*\s+")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def response_measures(responses: pl.Series, labels: pl.Series) -> dict[str, Any]:
    """Return the measures of N responses, ready for JSON.

    Keys:
        rows: N.
        repeated_sentences: as `repeated_sentences`.
        distinct_4grams: as `schema.text_measures.distinct_ngrams`.
        gzip_ratio: as `gzip_ratio`.
        beginning_accuracy, beginning_chance: as `beginning_accuracy`.

    Args:
        responses: (N,) String, without nulls.
        labels: (N,) String, the label of each response.

    >>> response_measures(pl.Series(["I can do that on Monday."] * 4), pl.Series(["a"] * 4))["repeated_sentences"]
    1.0
    """
    texts = responses.to_list()
    accuracy, chance = beginning_accuracy(texts, labels.to_list())
    return {
        "rows": len(texts),
        "repeated_sentences": repeated_sentences(texts),
        "distinct_4grams": distinct_ngrams(responses, GRAM_WORDS),
        "gzip_ratio": gzip_ratio(texts),
        "beginning_accuracy": accuracy,
        "beginning_chance": chance,
    }


def repeated_sentences(texts: Sequence[str]) -> float:
    """Return the share of sentences that occur more than once in all texts, 0 to 1; 0 without sentences.

    Sentences of fewer than `SENTENCE_WORDS` words are left out. Case and punctuation are not compared. A sentence ends
    with a full stop, a question mark or an exclamation mark that a space follows.

    >>> repeated_sentences(["Oh. I can come on Monday.", "Yes! I can come on Monday!", "I cannot come on Monday."])
    0.6666666666666666
    """
    counts = Counter(
        " ".join(words)
        for text in texts
        for sentence in _END_OF_SENTENCE.split(text)
        if len(words := _words(sentence)) >= SENTENCE_WORDS
    )
    return sum(count for count in counts.values() if count > 1) / counts.total() if counts else 0.0


def gzip_ratio(texts: Sequence[str]) -> float:
    """Return the size of all texts, joined by line ends, over its size compressed by gzip; 0 without texts.

    The more the texts repeat one another, the higher the ratio.
    """
    data = "\n".join(texts).encode()
    return len(data) / len(gzip.compress(data, mtime=0)) if data else 0.0


def beginning_accuracy(texts: Sequence[str], labels: Sequence[str]) -> tuple[float, float]:
    """Return (how often a text's first words give its label away, how often the commonest label is right), 0 to 1.

    A multinomial Naive Bayes classifier with add-one smoothing learns the words among the first `BEGINNING_WORDS` of
    one half of the texts, and guesses the labels of the other half. The places of the texts decide the halves. Both
    figures are 0 for fewer than two texts.
    """
    order = np.argsort(place_keys(0, len(texts)), kind="stable").tolist()
    learned, asked = order[: len(order) // 2], order[len(order) // 2 :]
    if not learned:
        return 0.0, 0.0
    beginnings = [_words(text)[:BEGINNING_WORDS] for text in texts]
    known = Counter(labels[place] for place in learned)
    words: dict[str, Counter[str]] = {label: Counter() for label in known}
    for place in learned:
        words[labels[place]].update(beginnings[place])
    vocabulary = len(set().union(*words.values())) + 1
    totals = {label: counts.total() + vocabulary for label, counts in words.items()}

    def likelihood(label: str, beginning: list[str]) -> float:
        return log(known[label]) + sum(log((words[label][word] + 1) / totals[label]) for word in beginning)

    candidates = sorted(known)
    guessed = [max(candidates, key=lambda label: likelihood(label, beginnings[place])) for place in asked]
    right = sum(guess == labels[place] for guess, place in zip(guessed, asked, strict=True))
    commonest = max(candidates, key=lambda label: known[label])
    return right / len(asked), sum(labels[place] == commonest for place in asked) / len(asked)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
