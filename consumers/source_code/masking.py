"""Mask tokens of windows: by a mask token, or by a span that is moved to the end (fill in the middle).

A window of n tokens has exactly round(share * n) tokens masked, halves up. Which ones follows from the window's random
number, and so from the feed's seed, the pass, the document and the part. Labels have the masked tokens, and `NO_LABEL`
at all other places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from consumers.tensor_form import Indices
from schema.compiled import compiled
from schema.splitmix import GOLDEN, mix_word

Tokens = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]

# The label of a token that is not to be learned, as torch's cross entropy expects it.
NO_LABEL = -100


def masked(tokens: Tokens, lengths: Indices, drawn: Words, share: float, mask: int) -> tuple[Tokens, Tokens]:
    """Return (tokens, labels), both as long as `tokens`: masked tokens are replaced by `mask`.

    >>> inputs, labels = masked(np.arange(10, dtype=np.int32), np.array([10]), np.array([3], dtype=np.uint64), 0.2, 99)
    >>> sorted(np.where(labels >= 0, labels, inputs).tolist()) == list(range(10)), inputs.tolist().count(99)
    (True, 2)

    Args:
        tokens: tokens of the windows, one after the other.
        lengths: (N,) tokens of each window.
        drawn: (N,) a random number for each window.
        share: share of the tokens to mask.
        mask: number of the mask token.
    """
    inputs, labels = tokens.copy(), np.full(len(tokens), NO_LABEL, dtype=np.int32)
    _mask(inputs, labels, lengths, drawn, share, mask)
    return inputs, labels


def filled_in_middle(
    tokens: Tokens, lengths: Indices, drawn: Words, share: float, fim: tuple[int, int, int]
) -> tuple[Tokens, Tokens]:
    """Return (tokens, labels): each window as prefix mark, prefix, suffix mark, suffix, middle mark, middle.

    The middle is one span with the masked tokens. Every window has three tokens more than before.

    Args:
        tokens: tokens of the windows, one after the other.
        lengths: (N,) tokens of each window.
        drawn: (N,) a random number for each window.
        share: share of the tokens in the middle.
        fim: numbers of the marks (prefix, suffix, middle).
    """
    inputs = np.empty(len(tokens) + 3 * len(lengths), dtype=np.int32)
    labels = np.full(len(inputs), NO_LABEL, dtype=np.int32)
    _move_middle(np.ascontiguousarray(tokens), lengths, drawn, share, np.array(fim, dtype=np.int32), inputs, labels)
    return inputs, labels


@compiled
def _mask(inputs: Tokens, labels: Tokens, lengths: Indices, drawn: Words, share: float, mask: int) -> None:
    """Choose the places of each window by selection sampling (Knuth, 3.4.2, algorithm S)."""
    place = 0
    for window in range(len(lengths)):
        counter = drawn[window]
        left = lengths[window]
        wanted = int(share * left + 0.5)
        while left > 0:
            counter += GOLDEN
            if (mix_word(counter) >> np.uint64(11)) * 2.0**-53 * left < wanted:
                labels[place] = inputs[place]
                inputs[place] = mask
                wanted -= 1
            left -= 1
            place += 1


@compiled
def _move_middle(
    tokens: Tokens, lengths: Indices, drawn: Words, share: float, marks: Tokens, inputs: Tokens, labels: Tokens
) -> None:
    begin = place = 0
    for window in range(len(lengths)):
        length = lengths[window]
        middle = int(share * length + 0.5)
        draw = (mix_word(drawn[window] + GOLDEN) >> np.uint64(11)) * 2.0**-53
        first = begin + int(draw * (length - middle + 1))
        last, end = first + middle, begin + length
        inputs[place] = marks[0]
        place += 1
        for token in range(begin, first):
            inputs[place] = tokens[token]
            place += 1
        inputs[place] = marks[1]
        place += 1
        for token in range(last, end):
            inputs[place] = tokens[token]
            place += 1
        inputs[place] = marks[2]
        place += 1
        for token in range(first, last):
            inputs[place] = tokens[token]
            labels[place] = tokens[token]
            place += 1
        begin = end
