"""Check whether a text is language at all, and whether a response only repeats its request.

The checks use Unicode's classes and work in any script. A check that needs spaces between words and letters with case
(the mean length of a word) applies only to texts in such a script. The limits are far from those of prose, because they
should catch only nonsense: symbols, one word over and over, random keys. Nothing here judges style.
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
from schema.splitmix import GOLDEN

Array = npt.NDArray[Any]

TEXTS = ("context", "request", "response")
FACTS: dict[str, pl.DataType] = {
    **{f"{text}_sane": pl.Boolean() for text in TEXTS},
    **{f"{text}_letter_bytes": pl.Int64() for text in TEXTS},
    "response_repeats": pl.Boolean(),
    "leftover": pl.Boolean(),
}
MEASURES: dict[str, pl.DataType] = {
    "visible": pl.Int64(),  # characters that are not spaces
    "letters": pl.Int64(),  # with their combining marks
    "letter_bytes": pl.Int64(),  # in UTF-8; scripts with few characters per word use more bytes per character
    "cased": pl.Int64(),  # letters of words in a script that has capitals
    "words": pl.Int64(),  # runs of letters
    "commonest_word": pl.Int64(),  # how often it occurs; hash collisions can make this too large, never too small
    "doubled_letters": pl.Int64(),  # letters that repeat the letter before
    "plain_words": pl.Int64(),  # of three or more ASCII letters
    "voweled_words": pl.Int64(),  # plain words with a vowel
    "broken": pl.Int64(),  # replacement, control and private-use characters
    "suspects": pl.Int64(),  # parts of possible leftovers: brackets, "%", words in capitals, "lorem"
}

# Values of English prose: letters are 0.96 of the visible characters, and a word has 4.3 letters. The commonest word is
# 0.07 of all words, 0.03 of the letters are doubled, and 0.99 of the words have a vowel.
_LEAST_LETTERS = 0.6
_MEAN_WORD = (1.5, 16.0)
# The commonest word may occur three times more than its share: "No, no, no, please, I cannot."
_MOST_ONE_WORD, _SAID_FREELY = 0.3, 3
_MOST_DOUBLED = 0.5
_LEAST_VOWELED = 0.6
# Shares of fewer words or letters are not judged: "No, no, no." is an answer.
_WORDS_TO_JUDGE = 8
_LETTERS_TO_JUDGE = 20
# Two texts that share this part of their words say the same.
_MOST_SHARED = 0.9

# Leftovers of a template or a draft, or of a model that mentions itself; each contains a suspect (see `MEASURES`).
LEFTOVERS = (
    r"[{}]|<[A-Za-z_ ]+>|\[[A-Z_ ]{2,}\]|\[(?:name|insert|your|setting|relation)\b|%[sd]\b|%\("
    r"|\b(?:TODO|FIXME|TBD)\b|\b(?i:lorem ipsum)\b|\b[Aa]s an AI (?:language )?model\b"
)

# Classes of code points, as bits.
_LETTER, _CASED, _SPACE, _BROKEN, _VOWEL, _CAPITAL, _SIGN = (1 << bit for bit in range(7))
_OF_CLASS = {"L": _LETTER, "M": _LETTER, "Z": _SPACE}
_OF_CATEGORY = {"Lu": _CASED | _CAPITAL, "Ll": _CASED, "Lt": _CASED}
# Above the last code point of a letter.
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
# Few bins, because all are cleared for each text. Words that share a bin by chance do not matter at these limits.
_WORD_BINS = 256
_LOREM = np.uint64(reduce(lambda hashed, letter: hashed * 33 + letter, b"lorem", 0))


def facts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the facts of each row's texts as a frame of `FACTS`, one row per row of `frame`."""
    measured = {text: measure(frame[text]) for text in TEXTS}
    words = {text: measured[text]["words"] for text in TEXTS}
    # Comparing words takes as long as all else. Only texts with about as many words can share nine words in ten.
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
    matches = frame.select(pl.col(TEXTS).gather(suspicious)).select(left).to_series()
    columns = [
        *(measured[text].select(sane()).to_series().alias(f"{text}_sane") for text in TEXTS),
        *(measured[text]["letter_bytes"].alias(f"{text}_letter_bytes") for text in TEXTS),
        repeating.scatter(places, repeated).alias("response_repeats"),
        leftover.scatter(suspicious, matches).alias("leftover"),
    ]
    return pl.DataFrame(columns, schema=FACTS)


def measure(texts: pl.Series) -> pl.DataFrame:
    """Return counts of each text's characters and words as a frame of `MEASURES`, one row per text; 0 for null."""
    data, bounds = strings(texts)
    counts = np.zeros((len(MEASURES), len(texts)), dtype=np.int64)
    _measure(data, bounds, _classes(), counts)
    return pl.DataFrame(dict(zip(MEASURES, counts, strict=True)), schema=MEASURES)


def sane() -> pl.Expr:
    """Return an expression over the columns of `measure`: whether a text is language at all."""
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
    """Return whether two texts (Utf8) share nine words in ten, whatever their case, punctuation and order.

    False for a null or a text without words.
    """
    lowered = [strings(texts.str.to_lowercase()) for texts in (first, second)]
    repeated = np.zeros(len(first), dtype=np.bool_)
    _repeats(*lowered[0], *lowered[1], _classes(), repeated)
    return pl.Series(first.name, repeated)


@cache
def _classes() -> Array:
    """Return the class of every code point below `_CLASSED`, as bits."""
    table = np.zeros(_CLASSED, dtype=np.uint8)
    for code in range(_CLASSED):
        category = unicodedata.category(chr(code))
        table[code] = _OF_CLASS.get(category[0], 0) | _OF_CATEGORY.get(category, 0)
        # Unassigned code points are not broken, because they depend on the version of Unicode.
        if category in ("Cc", "Co") or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
            table[code] = _BROKEN
    table[0xFFFD] = _BROKEN
    table[[ord(letter) for letter in "aeiouyAEIOUY"]] |= _VOWEL
    table[[ord(sign) for sign in "{}<[%"]] |= _SIGN
    table[[ord(space) for space in "\t\n\r\v\f"]] = _SPACE
    table.setflags(write=False)
    return table


@compiled
def _measure(data: Array, bounds: Array, classes: Array, counts: Array) -> None:
    """Fill `counts` (measures, rows) from the texts data[bounds[i]:bounds[i + 1]]."""
    word_bins = np.zeros(_WORD_BINS, dtype=np.int32)
    for row in range(bounds.size - 1):
        word_bins[:] = 0
        visible = letters = letter_bytes = cased = words = plain = voweled = broken = commonest = doubled = suspects = 0
        at, end = bounds[row], bounds[row + 1]
        while at < end:
            # ASCII is read here, because a call for each byte would take more time than all else.
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
                # Makes the cases of an ASCII letter equal; other characters that become equal do not matter here.
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
            place = (hashed * GOLDEN) >> np.uint64(56)
            word_bins[place] += 1
            commonest = max(commonest, word_bins[place])
        counts[_VISIBLE, row] = visible + letters
        counts[_LETTERS, row] = letters
        counts[_LETTER_BYTES, row] = letter_bytes
        counts[_CASED_LETTERS, row] = cased
        counts[_WORDS, row] = words
        counts[_COMMONEST_WORD, row] = commonest
        counts[_DOUBLED_LETTERS, row] = doubled
        counts[_PLAIN_WORDS, row] = plain
        counts[_VOWELED_WORDS, row] = voweled
        counts[_BROKEN_CHARACTERS, row] = broken
        counts[_SUSPECTS, row] = suspects


@compiled
def _repeats(
    first: Array, first_bounds: Array, second: Array, second_bounds: Array, classes: Array, repeated: Array
) -> None:
    """Fill `repeated` (rows): whether first[i] and second[i] share nine words in ten."""
    longest = 0
    for row in range(repeated.size):
        longest = max(longest, first_bounds[row + 1] - first_bounds[row])
        longest = max(longest, second_bounds[row + 1] - second_bounds[row])
    ours = np.empty(longest // 2 + 1, dtype=np.uint64)
    theirs = np.empty(longest // 2 + 1, dtype=np.uint64)
    for row in range(repeated.size):
        left = _words(first, first_bounds[row], first_bounds[row + 1], classes, ours)
        right = _words(second, second_bounds[row], second_bounds[row + 1], classes, theirs)
        # If the counts differ too much, the shorter text has too few words to share.
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
        repeated[row] = shared >= _MOST_SHARED * max(left, right)


@compiled
def _words(data: Array, at: int, end: int, classes: Array, hashes: Array) -> int:
    """Write the hashes of the words of data[at:end] to `hashes`; return the number of words."""
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
            hashed = (hashed ^ np.uint64(code)) * GOLDEN
            inside = True
        if inside:
            hashes[count] = hashed
            count += 1
    return count


@compiled
def _classified(data: Array, at: int, end: int, classes: Array) -> Any:
    """Return (class, code point, number of bytes) of the non-ASCII character at `at`; the data is UTF-8."""
    code = np.int64(data[np.uint64(at)])
    width = 2 if code < 0xE0 else (3 if code < 0xF0 else 4)
    # A text may be cut in the middle of a character.
    width = min(width, end - at)
    code &= 0xFF >> (width + 1)
    for step in range(1, width):
        code = (code << 6) | (np.int64(data[np.uint64(at + step)]) & 0x3F)
    return (classes[np.uint64(code)] if code < _CLASSED else np.uint8(0)), code, width
