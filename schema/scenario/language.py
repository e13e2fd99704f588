"""Whether a text is language at all, and whether an answer says more than the question did.

Judged by Unicode's own classes, in any script; what only holds where spaces separate words and letters have case (the
mean length of a word) is asked only of texts in such a script. The bounds are far from what prose has, for they are to
catch what is no prose: symbols, one word over and over, keys hit at random. Nothing here judges style.
"""

from __future__ import annotations

import unicodedata
from functools import cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from schema.buffers import strings
from schema.compiled import compiled

Array = npt.NDArray[Any]

TEXTS = ("context", "request", "response")
FACTS: dict[str, pl.DataType] = {
    **{f"{text}_sane": pl.Boolean() for text in TEXTS},
    **{f"{text}_letter_bytes": pl.Int64() for text in TEXTS},
    "response_repeats": pl.Boolean(),
    "leftover": pl.Boolean(),
}
MEASURES: dict[str, pl.DataType] = {
    "visible": pl.Int64(),  # characters but spaces
    "letters": pl.Int64(),  # with the marks that letters carry
    "letter_bytes": pl.Int64(),  # in UTF-8: a character of a script with few to a word takes more
    "cased": pl.Int64(),  # letters of words in a script that has capitals
    "words": pl.Int64(),  # runs of letters
    "commonest_word": pl.Int64(),  # how often it occurs; never too few, and seldom too many
    "doubled_letters": pl.Int64(),  # letters that are the one before once more
    "plain_words": pl.Int64(),  # of three or more ASCII letters
    "voweled_words": pl.Int64(),  # those of them with a vowel
    "broken": pl.Int64(),  # characters that stand for none: replacement, control, private use
    "suspects": pl.Int64(),  # what may begin or be a leftover: brackets, "%", words all in capitals, "lorem"
}

# English prose, for comparison: letters 0.96 of what is visible, words of 4.3 letters, the commonest 0.07 of them, 0.03
# of letters doubled, 0.99 of words with a vowel.
_LEAST_LETTERS = 0.6
_MEAN_WORD = (1.5, 16.0)
# Beside three more: "No, no, no, please, I cannot."
_MOST_ONE_WORD, _SAID_FREELY = 0.3, 3
_MOST_DOUBLED = 0.5
_LEAST_VOWELED = 0.6
# A share means something from so many on: "No, no, no." is an answer.
_WORDS_TO_JUDGE = 8
_LETTERS_TO_JUDGE = 20
# Of the words of two texts that are one text said twice.
_MOST_SHARED = 0.9

# What a template or a draft leaves behind, or a model that speaks of itself; each holds a suspect (`measure`).
LEFTOVERS = (
    r"[{}]|<[A-Za-z_ ]+>|\[[A-Z_ ]{2,}\]|\[(?:name|insert|your|setting|relation)\b|%[sd]\b|%\("
    r"|\b(?:TODO|FIXME|TBD)\b|\b(?i:lorem ipsum)\b|\b[Aa]s an AI (?:language )?model\b"
)

# Classes of code points, as bits.
_LETTER, _CASED, _SPACE, _BROKEN, _VOWEL, _CAPITAL, _SIGN = (1 << bit for bit in range(7))
_OF_CLASS = {"L": _LETTER, "M": _LETTER, "Z": _SPACE}
_OF_CATEGORY = {"Lu": _CASED | _CAPITAL, "Ll": _CASED, "Lt": _CASED}
# Beyond the last plane with letters.
_CLASSED = 0x32400
_ASCII = 0x80

(
    _VISIBLE,
    _LETTERS,
    _LETTER_BYTES,
    _CASED_LETTERS,
    _WORDS,
    _COMMONEST_WORD,
    _DOUBLED_LETTERS,
    _PLAIN_WORDS,
    _VOWELED_WORDS,
    _BROKEN_CHARACTERS,
    _SUSPECTS,
) = range(len(MEASURES))
# Few, for all are cleared for each text; what shares a bin by chance is little beside the bounds.
_WORD_BINS = 256
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_LOREM = np.uint64(reduce(lambda hashed, letter: hashed * 33 + letter, b"lorem", 0))


def facts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the facts of each row's texts: a frame of `FACTS`, as high as `frame` (wire columns)."""
    measured = {text: measure(frame[text]) for text in TEXTS}
    words = {text: measured[text]["words"] for text in TEXTS}
    # Comparing words costs as much again, and what has to share nine in ten has about as many.
    fewer, more = (
        pl.Series(extreme(words["request"].to_numpy(), words["response"].to_numpy()))
        for extreme in (np.minimum, np.maximum)
    )
    places = ((fewer > 0) & (fewer >= _MOST_SHARED * more)).arg_true()
    repeating = pl.Series(np.zeros(frame.height, dtype=np.bool_))
    repeated = repeats(frame["request"].gather(places), frame["response"].gather(places))
    leftover = pl.Series(np.zeros(frame.height, dtype=np.bool_))
    suspects = reduce(lambda left, right: left + right, (measured[text]["suspects"] for text in TEXTS)) > 0
    suspicious = suspects.arg_true()
    left = pl.any_horizontal(pl.col(text).str.contains(LEFTOVERS) for text in TEXTS).fill_null(False)
    found = frame.select(pl.col(TEXTS).gather(suspicious)).select(left).to_series()
    columns = [
        *(measured[text].select(sane()).to_series().alias(f"{text}_sane") for text in TEXTS),
        *(measured[text]["letter_bytes"].alias(f"{text}_letter_bytes") for text in TEXTS),
        repeating.scatter(places, repeated).alias("response_repeats"),
        leftover.scatter(suspicious, found).alias("leftover"),
    ]
    return pl.DataFrame(columns, schema=FACTS)


def measure(texts: pl.Series) -> pl.DataFrame:
    """Return what can be counted of each text (Utf8): a frame of `MEASURES`, as high as `texts` is long; null has 0."""
    data, bounds = strings(texts)
    found = np.zeros((len(MEASURES), len(texts)), dtype=np.int64)
    _measure(data, bounds, _classes(), found)
    return pl.DataFrame(dict(zip(MEASURES, found, strict=True)), schema=MEASURES)


def sane() -> pl.Expr:
    """Return whether a text is language at all, as an expression over `measure`'s columns."""
    words, letters = pl.col("words"), pl.col("letters")
    mostly_cased = pl.col("cased") * 2 > letters
    enough_words = words >= _WORDS_TO_JUDGE
    return (
        (pl.col("broken") == 0)
        & (letters >= _LEAST_LETTERS * pl.col("visible"))
        & (~(enough_words & mostly_cased) | (letters >= _MEAN_WORD[0] * words))
        & (~mostly_cased | (letters <= _MEAN_WORD[1] * words))
        & (~enough_words | (pl.col("commonest_word") <= _MOST_ONE_WORD * words + _SAID_FREELY))
        & ((letters < _LETTERS_TO_JUDGE) | (pl.col("doubled_letters") <= _MOST_DOUBLED * letters))
        & (
            (pl.col("plain_words") < _WORDS_TO_JUDGE)
            | (pl.col("voweled_words") >= _LEAST_VOWELED * pl.col("plain_words"))
        )
    )


def repeats(first: pl.Series, second: pl.Series) -> pl.Series:
    """Return whether two texts (Utf8) say the same: the same words, but for case, punctuation, order and one in ten.

    A null, or a text without a word, repeats nothing.
    """
    lowered = [strings(texts.str.to_lowercase()) for texts in (first, second)]
    found = np.zeros(len(first), dtype=np.bool_)
    _repeats(*lowered[0], *lowered[1], _classes(), found)
    return pl.Series(first.name, found)


@cache
def _classes() -> Array:
    """The class of every code point below `_CLASSED`, as bits."""
    table = np.zeros(_CLASSED, dtype=np.uint8)
    for code in range(_CLASSED):
        category = unicodedata.category(chr(code))
        table[code] = _OF_CLASS.get(category[0], 0) | _OF_CATEGORY.get(category, 0)
        # Not those that no character has yet: which they are depends on the version of Unicode.
        if category in ("Cc", "Co") or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            table[code] = _BROKEN
    table[0xFFFD] = _BROKEN
    table[[ord(letter) for letter in "aeiouyAEIOUY"]] |= _VOWEL
    table[[ord(sign) for sign in "{}<[%"]] |= _SIGN
    table[[ord(space) for space in "\t\n\r\v\f"]] = _SPACE
    table.setflags(write=False)
    return table


@compiled
def _measure(data: Array, bounds: Array, classes: Array, found: Array) -> None:
    """Fill `found` (measures, rows) from the texts data[bounds[i]:bounds[i + 1]]."""
    word_bins = np.zeros(_WORD_BINS, dtype=np.int32)
    for row in range(bounds.size - 1):
        word_bins[:] = 0
        visible = letters = letter_bytes = cased = words = plain = voweled = broken = commonest = doubled = suspects = 0
        at, end = bounds[row], bounds[row + 1]
        while at < end:
            # ASCII is read here, for a call for each byte would cost more than all else.
            code, width = np.int64(data[np.uint64(at)]), 1
            kind = classes[np.uint64(code)]
            if code >= _ASCII:
                kind, code, width = _classified(data, at, end, classes)
            if not kind & _LETTER:
                visible += (kind & _SPACE) == 0
                if kind & (_BROKEN | _SIGN):
                    broken += (kind & _BROKEN) != 0
                    suspects += (kind & _SIGN) != 0
                at += width
                continue
            start, length, hashed, before = at, 0, np.uint64(0), np.int64(0)
            some, every = np.uint8(0), np.uint8(0xFF)
            while kind & _LETTER:
                length += 1
                some |= kind
                every &= kind
                # Either case of an ASCII letter; what else falls together is little beside the bounds.
                code |= 32
                doubled += code == before
                before = code
                hashed = (hashed << np.uint64(5)) + hashed + np.uint64(code)
                at += width
                if at >= end:
                    break
                code, width = np.int64(data[np.uint64(at)]), 1
                kind = classes[np.uint64(code)]
                if code >= _ASCII:
                    kind, code, width = _classified(data, at, end, classes)
            words += 1
            letters += length
            letter_bytes += at - start
            if at - start == length and length >= 3:
                plain += 1
                voweled += (some & _VOWEL) != 0
            cased += length if every & _CASED else 0
            suspects += (length > 1 and (every & _CAPITAL) != 0) or hashed == _LOREM
            place = (hashed * _PRIME) >> np.uint64(56)
            word_bins[place] += 1
            commonest = max(commonest, word_bins[place])
        found[_VISIBLE, row] = visible + letters
        found[_LETTERS, row] = letters
        found[_LETTER_BYTES, row] = letter_bytes
        found[_CASED_LETTERS, row] = cased
        found[_WORDS, row] = words
        found[_COMMONEST_WORD, row] = commonest
        found[_DOUBLED_LETTERS, row] = doubled
        found[_PLAIN_WORDS, row] = plain
        found[_VOWELED_WORDS, row] = voweled
        found[_BROKEN_CHARACTERS, row] = broken
        found[_SUSPECTS, row] = suspects


@compiled
def _repeats(
    first: Array, first_bounds: Array, second: Array, second_bounds: Array, classes: Array, found: Array
) -> None:
    """Fill `found` (rows): whether first[i] and second[i] have the same words, but for one in ten."""
    longest = 0
    for row in range(found.size):
        longest = max(longest, first_bounds[row + 1] - first_bounds[row])
        longest = max(longest, second_bounds[row + 1] - second_bounds[row])
    ours = np.empty(longest // 2 + 1, dtype=np.uint64)
    theirs = np.empty(longest // 2 + 1, dtype=np.uint64)
    for row in range(found.size):
        left = _words(first, first_bounds[row], first_bounds[row + 1], classes, ours)
        right = _words(second, second_bounds[row], second_bounds[row + 1], classes, theirs)
        # So many words apart, the shorter cannot hold what the two have to share.
        if left == 0 or right == 0 or min(left, right) < _MOST_SHARED * max(left, right):
            continue
        ours[:left].sort()
        theirs[:right].sort()
        i = j = shared = 0
        while i < left and j < right:
            if ours[i] == theirs[j]:
                shared += 1
                i += 1
                j += 1
            elif ours[i] < theirs[j]:
                i += 1
            else:
                j += 1
        found[row] = shared >= _MOST_SHARED * max(left, right)


@compiled
def _words(data: Array, at: int, end: int, classes: Array, hashes: Array) -> int:
    """Fill `hashes` with those of the words of data[at:end]; return how many there are."""
    count = 0
    while at < end:
        hashed, inside = np.uint64(0), False
        while at < end:
            code, width = np.int64(data[np.uint64(at)]), 1
            kind = classes[np.uint64(code)]
            if code >= _ASCII:
                kind, code, width = _classified(data, at, end, classes)
            at += width
            if not kind & _LETTER:
                break
            hashed = (hashed ^ np.uint64(code)) * _PRIME
            inside = True
        if inside:
            hashes[count] = hashed
            count += 1
    return count


@compiled
def _classified(data: Array, at: int, end: int, classes: Array) -> Any:
    """Return (class, code point, bytes that it takes) of the character at `at`, beyond ASCII; strings are UTF-8."""
    code = np.int64(data[np.uint64(at)])
    width = 2 if code < 0xE0 else (3 if code < 0xF0 else 4)
    # A text that is cut in the middle of a character is read to its end and no further.
    width = min(width, end - at)
    code &= 0xFF >> (width + 1)
    for step in range(1, width):
        code = (code << 6) | (np.int64(data[np.uint64(at + step)]) & 0x3F)
    return (classes[np.uint64(code)] if code < _CLASSED else np.uint8(0)), code, width
