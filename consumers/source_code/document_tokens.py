"""Documents as tokens, with the characters and lines of their windows: made by a tokenizer, or taken from the cache.

A document has a prompt, which may be empty, and a target; its text is both together. The tokenizer reads the two apart,
so that a model that is given the prompt sees the same tokens as in training.

A window's characters are the smallest range [char_start, char_end) of the text that covers its tokens. A byte-level
tokenizer can cut a character in two, which is then in both windows. Lines are numbered from 1 and end with a line feed;
`line_end` is the line of the window's last character. An end token is behind the last character.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.source_code.token_cache import COLUMNS
from consumers.source_code.tokenizer import LoadedTokenizer
from consumers.tensor_form import Indices
from schema.buffers import strings

Tokens = npt.NDArray[np.int32]
# Returns the first tokens and the ends (K,) of the windows of a document with so many tokens.
Bounds = Callable[[int], tuple[Indices, Indices]]

PLACES = ("char_start", "char_end", "line_start", "line_end")
_LINE_FEED = 10


@dataclass(frozen=True, eq=False)
class Tokenized:
    """Documents that were tokenized together, with the places of their windows.

    Attributes:
        tokens: of each document, (n,) int32.
        prompts: (N,) tokens of each document's prompt, which come first.
        places: the `PLACES` (4, K) of each document's windows.
    """

    tokens: list[Tokens]
    prompts: Indices
    places: list[Indices]

    def frame(self) -> pl.DataFrame:
        """Return the frame that `from_cache` reads."""
        places = [each.astype(np.int32).ravel() for each in self.places]
        return pl.DataFrame({"tokens": self.tokens, "places": places, "prompt": self.prompts}, schema=COLUMNS)


def tokenized(documents: pl.DataFrame, loaded: LoadedTokenizer, bounds: Bounds, *, ended: bool) -> Tokenized:
    """Return the tokens of documents.

    Args:
        documents: with `prompt` and `target` (String, never null).
        loaded: the tokenizer.
        bounds: where a document's windows are.
        ended: whether the tokenizer's end token follows each target.
    """
    prompts, targets = (
        loaded.tokenizer.encode_batch(documents[name].to_list(), add_special_tokens=False)
        for name in ("prompt", "target")
    )
    end = [loaded.end] if ended else []
    pairs = list(zip(prompts, targets, strict=True))
    tokens = [np.array([*prompt.ids, *target.ids, *end], dtype=np.int32) for prompt, target in pairs]
    texts = documents.select(pl.concat_str("prompt", "target")).to_series()
    given, characters = documents["prompt"].str.len_chars().to_list(), texts.str.len_chars().to_list()
    places = [
        _places((*pair, before, every), text, bounds(len(each)))
        for pair, before, every, text, each in zip(pairs, given, characters, _bytes(texts), tokens, strict=True)
    ]
    return Tokenized(tokens, np.array([len(prompt.ids) for prompt in prompts], dtype=np.int64), places)


def from_cache(
    kept: pl.DataFrame, documents: pl.DataFrame, loaded: LoadedTokenizer, bounds: Bounds
) -> Tokenized | None:
    """Return the values of a cached frame, or None if they cannot be those of the documents."""
    if kept["prompt"].null_count() or any(each.null_count() for name in ("tokens", "places") for each in kept[name]):
        return None
    tokens = [each.to_numpy() for each in kept["tokens"]]
    prompts = kept["prompt"].cast(pl.Int64).to_numpy()
    flat = [each.to_numpy().astype(np.int64) for each in kept["places"]]
    if any(len(each) != 4 * len(bounds(len(some))[0]) for each, some in zip(flat, tokens, strict=True)):
        return None
    if any(not 0 <= prompt <= len(some) for prompt, some in zip(prompts.tolist(), tokens, strict=True)):
        return None
    places = [each.reshape(4, -1) for each in flat]
    most = loaded.tokenizer.get_vocab_size(with_added_tokens=True)
    if any(len(each) and not 0 <= each.min() <= each.max() < most for each in tokens):
        return None
    characters = documents.select(pl.sum_horizontal(pl.col("prompt", "target").str.len_chars())).to_series()
    for (starts, stops, first, last), most_characters in zip(places, characters.to_list(), strict=True):
        ordered = (starts >= 0) & (starts <= stops) & (stops <= most_characters) & (first >= 1) & (first <= last)
        if not ordered.all():
            return None
    return Tokenized(tokens, prompts, places)


def line_numbers(text: npt.NDArray[np.uint8], characters: Indices) -> Indices:
    """Return the lines (N,), from 1, of these characters of a text.

    Args:
        text: the text's UTF-8 bytes.
        characters: (N,) indices of characters.
    """
    feeds = np.flatnonzero(text == _LINE_FEED)
    inside = (text & 0xC0) == 0x80
    if len(feeds) and inside.any():
        # Bytes inside a character are not counted.
        feeds = feeds - np.cumsum(inside)[feeds]
    return np.searchsorted(feeds, characters, side="left").astype(np.int64) + 1


def _bytes(texts: pl.Series) -> Iterator[npt.NDArray[np.uint8]]:
    data, bounds = strings(texts.rechunk())
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield data[begin:end]


def _places(
    document: Sequence[Any], text: npt.NDArray[np.uint8], bounds: tuple[Indices, Indices]
) -> npt.NDArray[np.int64]:
    """Return `PLACES` (4, K) of the windows of a document.

    Args:
        document: the encodings of prompt and target, the characters of the prompt, and those of both.
        text: bytes of prompt and target.
        bounds: of the windows.
    """
    prompt, target, given, characters = document

    def place(token: int) -> tuple[int, int]:
        if token < len(prompt.ids):
            found: tuple[int, int] = prompt.token_to_chars(token)
            return found
        if token - len(prompt.ids) < len(target.ids):
            start, stop = target.token_to_chars(token - len(prompt.ids))
            return given + start, given + stop
        # The end token.
        return characters, characters

    begins, ends = bounds
    starts = np.array([place(token)[0] for token in begins.tolist()], dtype=np.int64)
    stops = np.array([place(token)[1] for token in (ends - 1).tolist()], dtype=np.int64)
    last = np.maximum(stops - 1, starts)
    lines = line_numbers(text, np.minimum(np.concatenate([starts, last]), max(characters - 1, 0)))
    return np.stack([starts, stops, lines[: len(starts)], lines[len(starts) :]])
