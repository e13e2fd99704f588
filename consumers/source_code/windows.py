"""Cut documents into overlapping windows of tokens, and find the characters and lines of each window.

A document of n tokens gives the windows [k * stride, min(k * stride + window, n)) for k = 0, 1, ... up to the first
that ends at n. So every token is in a window, and only the last window can be shorter than the others. A document
without tokens gives no window.

A window's characters are the smallest range [char_start, char_end) of the text that covers its tokens. A byte-level
tokenizer can cut a character in two, which is then in both windows. Lines are numbered from 1 and end with a line feed;
`line_end` is the line of the window's last character.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from consumers.form_options import FormIdentity
from consumers.sequence.weights import draws
from consumers.source_code.masking import filled_in_middle, masked
from consumers.source_code.token_cache import COLUMNS, TokenCache
from consumers.source_code.tokenizer import LoadedTokenizer
from consumers.tensor_form import PART, Indices
from schema.buffers import lists_of, strings

Tokens = npt.NDArray[np.int32]

PLACES = ("char_start", "char_end", "line_start", "line_end")
# The most bytes of text that are tokenized together; a token takes some 100 bytes until its windows are cut.
_TEXT_BYTES = 256 * 1024
# The most tokens of a frame of windows, unless one window has more.
_FRAME_TOKENS = 1 << 19
_LINE_FEED = 10


def window_bounds(tokens: int, window: int, stride: int) -> tuple[Indices, Indices]:
    """Return the first tokens and the ends (K,) of the windows of a document.

    >>> [bounds.tolist() for bounds in window_bounds(10, 4, 3)]
    [[0, 3, 6], [4, 7, 10]]

    Args:
        tokens: tokens of the document, at least 0.
        window: the most tokens of a window, at least 1.
        stride: from 1 to `window`.
    """
    count = 1 + -(-max(tokens - window, 0) // stride) if tokens else 0
    begins = np.arange(count, dtype=np.int64) * stride
    return begins, np.minimum(begins + window, tokens)


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


@dataclass(frozen=True)
class Windows:
    """The expansion of the code family: each document becomes its windows of tokens.

    Attributes:
        loaded: the tokenizer.
        identity: what decides the windows.
        cache: keeps tokenized documents; None tokenizes them in every pass.
    """

    loaded: LoadedTokenizer
    identity: FormIdentity
    cache: TokenCache | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a document that are read."""
        return ("text",)

    @property
    def beside(self) -> tuple[str, ...]:
        """The document's columns in files of windows."""
        return ("path", "split", "example_id")

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns of a window: `labels` only with masking."""
        tokens = {"input_ids": pl.List(pl.Int32())}
        labels = {"labels": pl.List(pl.Int32())} if self.identity.masking_form else {}
        return {**tokens, **labels, **dict.fromkeys(PLACES, pl.Int32())}

    @property
    def token_bytes(self) -> int:
        """Bytes of a window per token."""
        return 8 if self.identity.masking_form else 4

    @property
    def content_tokens(self) -> int:
        """The most tokens of a document in a window; the fill-in-the-middle form adds three."""
        return self.identity.window - (3 if self.identity.masking_form == "fim" else 0)

    def sequences(self, rows: pl.DataFrame, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        """Yield the documents' windows; see `consumers.tensor_form.Expansion.sequences`."""
        sizes = rows["text"].str.len_bytes().cast(pl.Int64).to_numpy()
        for begin, end in _groups(sizes, _TEXT_BYTES):
            yield from self._of(rows[begin:end], begin, seed, epoch)

    def _of(self, rows: pl.DataFrame, first: int, seed: int, epoch: int) -> Iterator[tuple[Indices, pl.DataFrame]]:
        """Yield the windows of documents that are tokenized together; `first` is the index of the first document."""
        tokens, places_of = self._tokenized(rows["text"])
        bounds = [self._bounds(each) for each in tokens]
        counts = [len(begins) for begins, _ in bounds]
        if not sum(counts):
            return
        before = np.concatenate([[0], np.cumsum([len(each) for each in tokens])])
        parents = np.repeat(np.arange(len(tokens)), counts)
        parts = np.concatenate([np.arange(count) for count in counts])
        begins, ends = (np.concatenate([each[side] for each in bounds]) for side in (0, 1))
        places = np.concatenate(places_of, axis=1)
        flat = np.concatenate(tokens)
        drawn = draws(rows["example_id"].to_numpy()[parents], parts, seed, epoch)
        for low, high in _groups(ends - begins, _FRAME_TOKENS):
            some = slice(low, high)
            cut = _gathered(flat, (before[parents] + begins)[some], (before[parents] + ends)[some])
            made = self._masked(cut, (ends - begins)[some], drawn[some])
            ranges = {name: pl.Series(name, places[number, some]) for number, name in enumerate(PLACES)}
            frame = pl.DataFrame({PART: pl.Series(parts[some], dtype=pl.Int32()), **made, **ranges})
            yield parents[some] + first, frame.cast(dict.fromkeys(PLACES, pl.Int32()))

    def _bounds(self, tokens: Tokens) -> tuple[Indices, Indices]:
        return window_bounds(len(tokens), self.content_tokens, self.identity.stride)

    def _tokenized(self, texts: pl.Series) -> tuple[list[Tokens], list[Indices]]:
        """Return each document's tokens, and the `PLACES` (4, K) of its windows."""
        if self.cache is None:
            return self._encoded(texts)
        key = self.cache.key(texts, self.identity.tokenizer, self.content_tokens, self.identity.stride)
        kept = self.cache.read(key, len(texts))
        if kept is not None and (values := self._kept(kept, texts)) is not None:
            return values
        tokens, places = self._encoded(texts)
        columns = {"tokens": tokens, "places": [each.astype(np.int32).ravel() for each in places]}
        self.cache.write(key, pl.DataFrame(columns, schema=COLUMNS))
        return tokens, places

    def _encoded(self, texts: pl.Series) -> tuple[list[Tokens], list[Indices]]:
        encoded = self.loaded.tokenizer.encode_batch(texts.to_list(), add_special_tokens=False)
        tokens = [np.array(each.ids, dtype=np.int32) for each in encoded]
        bounds = [self._bounds(each) for each in tokens]
        return tokens, [_places(*each) for each in zip(encoded, _texts(texts), bounds, strict=True)]

    def _kept(self, kept: pl.DataFrame, texts: pl.Series) -> tuple[list[Tokens], list[Indices]] | None:
        """Return the values of a cached frame, or None if they cannot be those of the texts."""
        if any(each.null_count() for name in COLUMNS for each in kept[name]):
            return None
        tokens = [each.to_numpy() for each in kept["tokens"]]
        flat = [each.to_numpy().astype(np.int64) for each in kept["places"]]
        if any(len(each) != 4 * len(self._bounds(some)[0]) for each, some in zip(flat, tokens, strict=True)):
            return None
        places = [each.reshape(4, -1) for each in flat]
        most = self.loaded.tokenizer.get_vocab_size(with_added_tokens=True)
        if any(len(each) and not 0 <= each.min() <= each.max() < most for each in tokens):
            return None
        for (starts, stops, first, last), characters in zip(places, texts.str.len_chars().to_list(), strict=True):
            ordered = (starts >= 0) & (starts <= stops) & (stops <= characters) & (first >= 1) & (first <= last)
            if not ordered.all():
                return None
        return tokens, places

    def _masked(self, tokens: Tokens, lengths: Indices, drawn: npt.NDArray[np.uint64]) -> dict[str, pl.Series]:
        """Return the tokens of windows, one after the other, as columns of lists."""
        share = self.identity.masking
        match self.identity.masking_form:
            case "mask":
                mask = self.loaded.mask
                assert mask is not None  # noqa: S101  # the form refuses a tokenizer without one
                inputs, labels = masked(tokens, lengths, drawn, share, mask)
            case "fim":
                fim = self.loaded.fim
                assert fim is not None  # noqa: S101  # as above
                inputs, labels = filled_in_middle(tokens, lengths, drawn, share, fim)
                lengths = lengths + len(fim)
            case _:
                return {"input_ids": _lists(tokens, lengths)}
        return {"input_ids": _lists(inputs, lengths), "labels": _lists(labels, lengths)}


def _lists(items: Tokens, lengths: Indices) -> pl.Series:
    return lists_of(pl.Series(items, dtype=pl.Int32()), lengths)


def _groups(sizes: npt.NDArray[Any], most: int) -> Iterator[tuple[int, int]]:
    """Yield [begin, end) of consecutive items whose sizes add up to at most `most`; a larger item is alone."""
    begin = total = 0
    for index, size in enumerate(sizes.tolist()):
        if index > begin and total + size > most:
            yield begin, index
            begin, total = index, 0
        total += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _texts(texts: pl.Series) -> Iterator[npt.NDArray[np.uint8]]:
    data, bounds = strings(texts.rechunk())
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield data[begin:end]


def _places(encoding: Any, text: npt.NDArray[np.uint8], bounds: tuple[Indices, Indices]) -> npt.NDArray[np.int64]:
    """Return `PLACES` (4, K) of the windows of a document."""
    begins, ends = bounds
    starts = np.array([encoding.token_to_chars(token)[0] for token in begins.tolist()], dtype=np.int64)
    stops = np.array([encoding.token_to_chars(token)[1] for token in (ends - 1).tolist()], dtype=np.int64)
    lines = line_numbers(text, np.concatenate([starts, np.maximum(stops - 1, starts)]))
    return np.stack([starts, stops, lines[: len(starts)], lines[len(starts) :]])


def _gathered(tokens: Tokens, begins: Indices, ends: Indices) -> Tokens:
    """Return the tokens of windows, one after the other."""
    pieces = [tokens[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    return np.concatenate(pieces)
